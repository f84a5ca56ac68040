"""Train the embedded decoder's prior: from noise to latents (flow matching).

The prior's condition is what the teacher reads in the names of a picture and of its kin
(training_batches.NameTargets) plus noise, so that prompts, which live in the same space, need no
second map. It resumes from its checkpoint; each batch depends on the step alone.

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
from decoder_pictures import PictureSource
from diffusers import AutoencoderTiny, UNet2DModel
from knowledge import EMBED_DIM
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from train_autoencoder import (
    LATENTS,
    checkpoint,
    in_cells,
    load_autoencoder,
    resume,
    set_rate,
)

from dfkd_edge.networks.mixed_precision import mixed_precision
from dfkd_edge.networks.views import uniform
from dfkd_edge.synthesis.decoder import from_eight_bits

PRIOR = {
    "sample_size": 12,
    "in_channels": LATENTS,
    "out_channels": LATENTS,
    "block_out_channels": (64, 128, 128),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 16,
    "attention_head_dim": 32,
    "class_embed_type": "identity",
}
PRIOR_RATE = 5e-4
MAX_PICTURES = 20_000
"""Pictures of each kind that the prior learns from."""
FREE_SHARE = 0.1
"""Share of training pictures without a condition, for classifier-free guidance."""


@torch.inference_mode()
def encode_pictures(work: Path, batch: int = 128) -> None:
    """Write latents.npy and conditions.npy of drawn photos and icons, and what channels weigh."""
    source, model = PictureSource(work), load_autoencoder(work)
    bank_VD = torch.from_numpy(np.load(work / "bank.npy"))
    rng, generator = np.random.default_rng(3), torch.Generator().manual_seed(3)
    latents, conditions = [], []
    for pictures, copies in ((source.photos, 1), (source.icons, 2)):
        known = np.flatnonzero(pictures.draw_weight)
        count = min(len(known) * copies, MAX_PICTURES)
        share = pictures.draw_weight[known] / pictures.draw_weight[known].sum()
        rows = np.sort(rng.choice(known, count, p=share))
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            image = source.pixels(pictures, part, generator)
            with mixed_precision("cpu"):
                latents.append(model.encode(in_cells(image)).latents.half())
            kin_NKD = bank_VD[pictures.target_index[part]]
            weight_NK1 = torch.from_numpy(pictures.target_weight[part])[..., None]
            conditions.append(F.normalize((weight_NK1 * kin_NKD).sum(1), dim=1).half())
    latent = torch.cat(latents)
    scale = float(latent.float().std())
    np.save(work / "latents.npy", (latent.float() / scale).half().numpy())
    np.save(work / "conditions.npy", torch.cat(conditions).numpy())
    weight_L = channel_weights(model, latent[:: len(latent) // 256].float(), generator)
    facts = {"scale": scale, "channel_weight": weight_L.tolist()}
    (work / "latents.json").write_text(json.dumps(facts), encoding="utf-8")
    print(f"{len(latent)} latents, deviation {scale:.3f}, weights {weight_L}", flush=True)


def channel_weights(
    model: AutoencoderTiny, latent_NLhw: Tensor, generator: torch.Generator
) -> Tensor:
    """Mean squared change of the pixels when a channel errs, relative to the mean channel, [L]."""
    plain = model.decode(latent_NLhw).sample
    changes = []
    for channel in range(latent_NLhw.shape[1]):
        moved = latent_NLhw.clone()
        moved[:, channel] += 0.5 * torch.randn(moved[:, channel].shape, generator=generator)
        changes.append((model.decode(moved).sample - plain).square().mean())
    change_L = torch.stack(changes)
    return change_L / change_L.mean()


def noisy(condition_ND: Tensor, generator: torch.Generator, most: float = 0.8) -> Tensor:
    """Push unit conditions off by up to `most` times their length; some of them to zero."""
    num = len(condition_ND)
    noise_ND = F.normalize(torch.randn(condition_ND.shape, generator=generator), dim=1)
    moved_ND = F.normalize(condition_ND + uniform((num, 1), 0, most, generator) * noise_ND, dim=1)
    free = torch.rand((num, 1), generator=generator) < FREE_SHARE
    return torch.where(free, torch.zeros_like(moved_ND), moved_ND)


def read_start(folder: Path) -> dict[str, Tensor]:
    """Read the prior of a decoder folder."""
    weights = from_eight_bits(load_file(folder / "prior.safetensors"))
    return {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}


def widened(own: dict[str, Tensor], start: dict[str, Tensor]) -> dict[str, Tensor]:
    """Lay start weights into the first rows and columns of wider ones, which keep the rest."""
    result = {k: v.clone() for k, v in own.items()}
    for name, value in start.items():
        result[name][tuple(slice(size) for size in value.shape)] = value
    return result


def start_prior(folder: Path | None) -> UNet2DModel:
    """Build the prior, from that of a decoder folder where there is one: it errs no more at first.

    New channels are not looked at, and are next to nothing in what it says, until it learns to.
    """
    model = UNet2DModel(**PRIOR)
    if folder:
        nn.init.zeros_(model.conv_in.weight)
        model.conv_out.weight.data *= 0.1
        nn.init.zeros_(model.conv_out.bias)
        model.load_state_dict(widened(model.state_dict(), read_start(folder)))
    return model.to(memory_format=torch.channels_last)


def train_prior(work: Path, steps: int, first: Path | None, batch: int = 64) -> None:
    """Learn the flow from noise to latents; write prior.safetensors (averaged weights)."""
    latent_all = torch.from_numpy(np.load(work / "latents.npy"))
    condition_all = torch.from_numpy(np.load(work / "conditions.npy"))
    facts = json.loads((work / "latents.json").read_text(encoding="utf-8"))
    weight_L11 = torch.tensor(facts["channel_weight"])[:, None, None]
    model = start_prior(first)
    optimiser = torch.optim.AdamW(model.parameters(), lr=PRIOR_RATE, weight_decay=0.01)
    path, averages = work / "prior_checkpoint.safetensors", work / "prior.safetensors"
    start = resume(path, model, optimiser)
    average = (
        load_file(averages) if start else {k: v.clone() for k, v in model.state_dict().items()}
    )
    clock, shown = time.time(), torch.zeros(len(weight_L11))
    for step in range(start, steps):
        set_rate(optimiser, PRIOR_RATE, step, steps)
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
        squared = (velocity.float() - (latent - noise)).square()
        optimiser.zero_grad()
        (squared * weight_L11).mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        for key, value in model.state_dict().items():
            average[key].lerp_(value, 1 - min(0.998, (step + 1) / (step + 10)))
        shown += squared.detach().mean((0, 2, 3)) / 50
        if step % 50 == 49:
            pace = (step + 1 - start) / (time.time() - clock)
            weighted = float((shown * weight_L11.flatten()).mean())
            parts = " ".join(f"{loss:.2f}" for loss in shown)
            print(f"{step + 1} loss {weighted:.4f} ({parts}) {pace:.2f} steps/s", flush=True)
            shown.zero_()
        if step % 200 == 199 or step + 1 == steps:
            save_file({k: v.contiguous() for k, v in average.items()}, averages)
            checkpoint(path, step + 1, model, optimiser)


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("latents", "prior"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--start", type=Path, help="decoder whose prior is continued")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.part == "latents":
        encode_pictures(args.work)
    else:
        train_prior(args.work, args.steps, args.start)


if __name__ == "__main__":
    main()
