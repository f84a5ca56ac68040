"""Train the embedded decoder's autoencoder: pixels to latents and back.

It starts as a linear map, principal components of cells of 8 x 8 pixels, and learns from there.
Each part resumes from its checkpoint; each batch depends on the step alone.

Shape suffixes: N pictures, L latent channels, h, w latent rows and columns, C = 3 channels,
H rows, W columns.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from decoder_pictures import SIDE_PX, PictureSource
from diffusers import AutoencoderTiny
from diffusers.models.unets.unet_2d_blocks import AutoencoderTinyBlock
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from train_image_tower import save_checkpoint

from dfkd_edge.networks.mixed_precision import mixed_precision
from dfkd_edge.synthesis.decoder import load_decoder

CELL_PX = 8
LATENTS = 16
WIDTH = 128
AUTOENCODER: dict[str, Any] = {
    "in_channels": 3 * CELL_PX**2,
    "out_channels": 3 * CELL_PX**2,
    "encoder_block_out_channels": (WIDTH,),
    "decoder_block_out_channels": (WIDTH,),
    "num_encoder_blocks": (2,),
    "num_decoder_blocks": (3,),
    "latent_channels": LATENTS,
}
"""The pixels of a cell are channels, so that all layers work at the latents' side."""
AUTOENCODER_RATE = 6e-4
LATENT_NOISE = 0.08
"""Deviation of the noise on latents, whose own is 1, so that the prior may err by as much."""
NUM_FITTED = 1024
"""Pictures that the autoencoder's linear start is fitted to."""
POLISH_NOISE = 0.03
POLISH_FIRST = 1_000_000
"""Number of the first draw of pictures that the decoder is polished on."""


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


def in_cells(image_NCHW: Tensor) -> Tensor:
    """Turn images in [0, 1] into what the autoencoder takes, [N, 3 * CELL_PX ** 2, h, w]."""
    cells = F.pixel_unshuffle(image_NCHW * 2 - 1, CELL_PX)
    return cells.contiguous(memory_format=torch.channels_last)


class Normalised(nn.Module):
    """An autoencoder whose latents have unit deviation, channel by channel.

    The first channels are taught to be the latents of a decoder that it starts from, so that the
    prior of that one can be continued; the others are standardised while it trains, and `folded`
    builds that into the encoder's last convolution.
    """

    def __init__(self, num_kept: int) -> None:
        """Build it; the first `num_kept` channels are not standardised."""
        super().__init__()
        self.autoencoder = AutoencoderTiny(**AUTOENCODER)
        start_as_identities(self.autoencoder)
        self.num_kept = num_kept
        self.norm = nn.BatchNorm2d(LATENTS - num_kept, affine=False, momentum=0.01)
        self.to(memory_format=torch.channels_last)

    def encode(self, image_NCHW: Tensor) -> Tensor:
        """Latents [N, L, h, w], float32."""
        latent = self.autoencoder.encode(in_cells(image_NCHW)).latents.float()
        return torch.cat((latent[:, : self.num_kept], self.norm(latent[:, self.num_kept :])), 1)

    def decode(self, latent_NLhw: Tensor) -> Tensor:
        """Images [N, 3, H, W], which need not lie in [0, 1]."""
        sample = self.autoencoder.decode(latent_NLhw).sample.float()
        return F.pixel_shuffle(sample, CELL_PX) * 0.5 + 0.5

    @torch.no_grad()
    def folded(self) -> dict[str, Tensor]:
        """Weights of the autoencoder alone; its latents are those of `encode`."""
        weights = {k: v.clone() for k, v in self.autoencoder.state_dict().items()}
        last = f"encoder.layers.{len(self.autoencoder.encoder.layers) - 1}"
        mean, deviation = self.norm.running_mean, (self.norm.running_var + self.norm.eps).sqrt()
        weights[f"{last}.weight"][self.num_kept :] /= deviation[:, None, None, None]
        bias = weights[f"{last}.bias"]
        bias[self.num_kept :] = (bias[self.num_kept :] - mean) / deviation
        return {k: v.contiguous() for k, v in weights.items()}


class KeptLatents:
    """Latents of the decoder that is continued, of unit deviation; none without one."""

    def __init__(self, folder: Path | None) -> None:
        """Open its encoder."""
        self.num = 0
        if folder:
            self.decoder = load_decoder(folder)
            self.num = self.decoder.latent_shape[0]

    @torch.no_grad()
    def __call__(self, image_NCHW: Tensor) -> Tensor:
        """Latents [N, L, h, w], float32."""
        if not self.num:
            return torch.empty((len(image_NCHW), 0, *(SIDE_PX // CELL_PX,) * 2))
        with mixed_precision("cpu"):
            image = image_NCHW.contiguous(memory_format=torch.channels_last)
            latent = self.decoder.autoencoder.encode(image).latents
        return latent.float() / self.decoder.latent_scale


@torch.no_grad()
def start_as_identities(model: AutoencoderTiny) -> None:
    """Let blocks start as identities: there is no norm that would mend the scale."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, AutoencoderTinyBlock):
            module.conv[-1].weight.mul_(0.01)


def linear_map(feature: Tensor, target: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
    """Fit a convolution that takes [N, C, h, w] to [N, K, h, w]; returns weights and bias."""
    seen = feature if kernel == 1 else F.unfold(feature, kernel, padding=kernel // 2)
    rows = F.pad(seen.flatten(2).movedim(1, -1).flatten(0, 1), (0, 1), value=1.0)
    goal = target.movedim(1, -1).flatten(0, 2)
    square = rows.T @ rows
    ridge = 1e-4 * square.diagonal().mean() * torch.eye(len(square))
    solved = torch.linalg.solve(square + ridge, rows.T @ goal)
    shape = (target.shape[1], feature.shape[1], kernel, kernel)
    return solved[:-1].T.reshape(shape), solved[-1]


@torch.no_grad()
def start_linear(model: Normalised, image: Tensor, kept: Tensor) -> None:
    """Start as principal components of cells, after what the kept latents tell of them.

    Each component passes the ReLUs as a pair of its positive and its negative part.
    """
    cells = F.pixel_unshuffle(image, CELL_PX)
    weight, bias = linear_map(cells, kept, 3)
    told = F.conv2d(cells, weight, bias, padding=1) if len(bias) else kept
    back, back_bias = linear_map(told, cells, 1)
    guessed = torch.einsum("ck,nkhw->nchw", back[:, :, 0, 0], told)
    residual = cells - guessed - back_bias[:, None, None]
    rows = residual.movedim(1, -1).flatten(0, 2)
    value, vector = torch.linalg.eigh(rows.T @ rows / len(rows))
    num = LATENTS - len(kept[0])
    basis = (vector[:, -num:] / value[-num:].sqrt()).flip(1).T  # of unit deviation
    through = torch.einsum("rc,ck->rk", basis, back[:, :, 0, 0])
    more = -torch.einsum("rk,kchw->rchw", through, weight)
    more[:, :, 1, 1] += basis
    more_bias = -(basis @ back_bias) - through @ bias
    first, last = model.autoencoder.encoder.layers[0], model.autoencoder.encoder.layers[-1]
    weight, bias = torch.cat((weight, more)), torch.cat((bias, more_bias))
    first.weight[: 2 * LATENTS] = torch.cat((weight, -weight))
    first.bias[: 2 * LATENTS] = torch.cat((bias, -bias))
    pair = torch.cat((torch.eye(LATENTS), -torch.eye(LATENTS)))
    last.weight.zero_()
    last.weight[:, : 2 * LATENTS, 1, 1] = pair.T
    latent = F.conv2d(cells, weight, bias, padding=1)
    into, out = model.autoencoder.decoder.layers[0], model.autoencoder.decoder.layers[-1]
    into.weight[: 2 * LATENTS] = 0
    into.weight[: 2 * LATENTS, :, 1, 1] = pair
    weight, bias = linear_map(torch.tanh(latent / 3) * 3, cells, 3)  # the decoder's own limit
    out.weight.zero_()
    out.weight[:, : 2 * LATENTS] = torch.cat((weight, -weight), 1)
    out.bias.copy_(bias)


def as_shown(decoded: Tensor) -> Tensor:
    """Clamp to [0, 1] what is seen, not what is learnt from it."""
    return decoded + (decoded.clamp(0, 1) - decoded).detach()


def pixel_loss(decoded: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
    """Absolute and squared differences, and those of 4 x 4 means; and the mean squared one."""
    difference = as_shown(decoded) - image
    squared = difference.square().mean()
    colour = F.avg_pool2d(difference, 4).abs().mean()
    return difference.abs().mean() + 10 * squared + 2 * colour, squared


def train_autoencoder(work: Path, steps: int, first: Path | None, batch: int = 32) -> None:
    """Learn pixels -> latents -> pixels; write autoencoder(_trained).safetensors."""
    source, kept = PictureSource(work), KeptLatents(first)
    model = Normalised(kept.num)
    optimiser = torch.optim.AdamW(model.parameters(), lr=AUTOENCODER_RATE, weight_decay=1e-4)
    path = work / "autoencoder_checkpoint.safetensors"
    start = resume(path, model, optimiser)
    if not start:
        image = source.draw(steps, NUM_FITTED)
        start_linear(model, image, torch.cat([kept(part) for part in image.split(64)]))
    clock, shown, drift = time.time(), 0.0, 0.0
    for step in range(start, steps):
        set_rate(optimiser, AUTOENCODER_RATE, step, steps)
        generator = torch.Generator().manual_seed(step)
        image = source.draw(step, batch)
        with mixed_precision("cpu"):
            latent = model.encode(image)
            noise = torch.randn(latent.shape, generator=generator)
            decoded = model.decode(latent + LATENT_NOISE * noise)
        loss, squared = pixel_loss(decoded, image)
        some = slice(None, None, 8)
        if kept.num:
            away = F.mse_loss(latent[some, : kept.num], kept(image[some]))
            loss, drift = loss + 0.5 * away, drift + float(away.detach()) / 20
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        shown += float(squared.detach()) / 20
        if step % 20 == 19:
            pace = (step + 1 - start) / (time.time() - clock)
            psnr = -10 * np.log10(shown)
            print(f"{step + 1} {psnr:.2f} dB, kept {drift:.4f}, {pace:.2f} steps/s", flush=True)
            shown = drift = 0.0
        if step % 100 == 99 or step + 1 == steps:
            checkpoint(path, step + 1, model, optimiser)
            for stem in ("autoencoder", "autoencoder_trained"):
                save_file(model.folded(), work / f"{stem}.safetensors")


def load_autoencoder(work: Path, stem: str = "autoencoder") -> AutoencoderTiny:
    """Load what was trained."""
    model = AutoencoderTiny(**AUTOENCODER)
    model.load_state_dict(load_file(work / f"{stem}.safetensors"))
    return model.eval().to(memory_format=torch.channels_last)


def polish_decoder(work: Path, steps: int, batch: int = 32) -> None:
    """Learn to decode better what the encoder, which is left as it is, makes of pictures.

    The prior has learnt its latents, so this may run beside or after it. The autoencoder's own
    training is kept, and autoencoder.safetensors written anew.
    """
    source, model = PictureSource(work), load_autoencoder(work, "autoencoder_trained")
    decoder = model.decoder.train()
    optimiser = torch.optim.AdamW(decoder.parameters(), lr=AUTOENCODER_RATE, weight_decay=1e-4)
    path = work / "polish_checkpoint.safetensors"
    start = resume(path, decoder, optimiser)
    clock, shown = time.time(), 0.0
    for step in range(start, steps):
        set_rate(optimiser, AUTOENCODER_RATE, step, steps)
        generator = torch.Generator().manual_seed(step)
        image = source.draw(POLISH_FIRST + step, batch)
        with mixed_precision("cpu"):
            with torch.no_grad():
                latent = model.encode(in_cells(image)).latents.float()
            noise = torch.randn(latent.shape, generator=generator)
            sample = model.decode(latent + POLISH_NOISE * noise).sample.float()
        squared = as_shown(F.pixel_shuffle(sample, CELL_PX) * 0.5 + 0.5).sub(image).square().mean()
        optimiser.zero_grad()
        (20 * squared).backward()
        nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimiser.step()
        shown += float(squared.detach()) / 20
        if step % 20 == 19:
            pace = (step + 1 - start) / (time.time() - clock)
            print(f"{step + 1} {-10 * np.log10(shown):.2f} dB, {pace:.2f} steps/s", flush=True)
            shown = 0.0
        if step % 100 == 99 or step + 1 == steps:
            checkpoint(path, step + 1, decoder, optimiser)
            save_file(
                {k: v.contiguous() for k, v in model.state_dict().items()},
                work / "autoencoder.safetensors",
            )


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("train", "polish"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--start", type=Path, help="decoder whose latents are the first channels")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.part == "train":
        train_autoencoder(args.work, args.steps, args.start)
    else:
        polish_decoder(args.work, args.steps)


if __name__ == "__main__":
    main()
