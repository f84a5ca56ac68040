"""The embedded decoder: an image prior in the manner of unCLIP, made of diffusers classes.

A small `UNet2DModel` turns noise into the latent of a picture, conditioned on a point of the
teacher's embedding space (flow matching, Lipman et al., ICLR 2023); an `AutoencoderTiny` decodes
the latent to pixels: those of a cell are its channels, so all its layers work at the latent's side.
examples/embedded_teacher trained both on named pictures; they are frozen.

Shape suffixes: N images, D = 256 embedding width, L latent channels, h, w latent rows and columns,
H, W pixel rows and columns.
"""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny, UNet2DModel
from safetensors.torch import load_file
from torch import Tensor

from dfkd_edge import assets
from dfkd_edge.errors import ConfigError
from dfkd_edge.interfaces import tell_nobody
from dfkd_edge.networks.draws import drawn
from dfkd_edge.networks.mixed_precision import mixed_precision

SCALE_SUFFIX = "/scale"  # Marks the scales of weights that are stored as int8
LATENT_LIMIT = 4.0
"""Latents that are optimised stay within so many deviations of the prior's (ours)."""

LatentShape = tuple[int, int, int]  # L, h, w


def latent_shape_of(num_channels: int, cell_px: int, image_size_px: int) -> LatentShape:
    """Shape of the latent of a square image.

    Raises:
        ConfigError: the side is no multiple of a latent cell's.
    """
    if image_size_px % cell_px:
        raise ConfigError(
            f"{image_size_px} px is no multiple of the decoder's {cell_px} px",
            where="synthesis.image_size_px",
            hint=f"such as {-(-image_size_px // cell_px) * cell_px}",
        )
    return (num_channels, *(image_size_px // cell_px,) * 2)


class LatentDecoder(Protocol):
    """Turns latents into pictures."""

    image_size_px: int
    latent_shape: LatentShape
    spread: float
    """Deviation of its latents: the unit of an optimiser's rate."""

    def start(self, num: int, side: int, generator: torch.Generator) -> Tensor:
        """Draw start latents [N, L, side, side] for an optimisation."""

    def clamp(self, latent_NLhw: Tensor) -> Tensor:
        """Keep latents in the range that the decoder was trained on."""

    def descend(self, latent_NLhw: Tensor, gradient_NLhw: Tensor, rate: float) -> Tensor:
        """Step against the gradient, as far in each image as `rate` says in the decoder's terms."""

    def decode(self, latent_NLhw: Tensor) -> Tensor:
        """Decode latents of any side to RGB images [N, 3, H, W] in [0, 1]; differentiable."""


class Decoder:
    """Samples latents around points of the teacher's embedding space, and decodes them."""

    spread = 1.0

    def __init__(
        self,
        autoencoder: AutoencoderTiny,
        prior: UNet2DModel,
        image_size_px: int,
        scale: float,
        sampled_shares: Sequence[float],
    ) -> None:
        """Freeze both networks.

        The prior predicts the flow's velocity in images of side `image_size_px`; `scale` takes its
        latents, whose deviation is 1, to the autoencoder's. Of each channel that it samples,
        `sampled_shares` keeps so much: detail that it cannot predict comes out as noise.
        """
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.prior = prior.eval().requires_grad_(False)
        self.autoencoder.to(memory_format=torch.channels_last)
        self.prior.to(memory_format=torch.channels_last)
        self.image_size_px, self.latent_scale = image_size_px, scale
        pixels: Any = autoencoder.config
        self.shuffled_px = math.isqrt(int(pixels.out_channels) // 3)
        self.sampled_L11 = torch.tensor(sampled_shares, device=prior.device)[:, None, None]
        config: Any = prior.config
        self.latent_shape: LatentShape = (int(config.in_channels), *(int(config.sample_size),) * 2)

    @property
    def embed_dim(self) -> int:
        """Width D of the condition: diffusers' time embedding is four times the first block's."""
        config: Any = self.prior.config
        return int(config.block_out_channels[0]) * 4

    def resize(self, image_size_px: int) -> None:
        """Accept latents of another size, for optimisation only.

        The autoencoder is convolutional; the prior samples the size that it was trained on.

        Raises:
            ConfigError: the side is no multiple of a latent cell's.
        """
        cell_px = self.image_size_px // self.latent_shape[1]
        self.latent_shape = latent_shape_of(self.latent_shape[0], cell_px, image_size_px)
        self.image_size_px = image_size_px

    def start(self, num: int, side: int, generator: torch.Generator) -> Tensor:
        """Draw start latents [N, L, side, side] for an optimisation."""
        shape = (num, self.latent_shape[0], side, side)
        return drawn(torch.randn, shape, generator)

    def clamp(self, latent_NLhw: Tensor) -> Tensor:
        """Keep latents in the range that the autoencoder was trained on."""
        return latent_NLhw.clamp(-LATENT_LIMIT, LATENT_LIMIT)

    def descend(self, latent_NLhw: Tensor, gradient_NLhw: Tensor, rate: float) -> Tensor:
        """Step against the gradient, by `rate` deviations in the root mean square of an image."""
        size_N111 = gradient_NLhw.flatten(1).square().mean(1).sqrt()[:, None, None, None]
        step_NLhw = rate * gradient_NLhw / size_N111.clamp(min=1e-12)
        return self.clamp(latent_NLhw - step_NLhw)

    def velocity(self, latent_NLhw: Tensor, time_N: Tensor, condition_ND: Tensor) -> Tensor:
        """Flow velocity at times in [0, 1] (0 = noise); a condition of zeros is "any picture"."""
        scaled_ND = condition_ND * self.embed_dim**0.5  # unit rows to unit deviation
        with mixed_precision(latent_NLhw.device.type):
            velocity: Tensor = self.prior(
                latent_NLhw,
                time_N * 1000,  # diffusers embeds steps of 1,000
                class_labels=scaled_ND,
                return_dict=False,
            )[0]
        return velocity.float()

    @torch.no_grad()
    def sample(
        self,
        condition_ND: Tensor,
        generator: torch.Generator,
        num_steps: int = 10,
        guidance_scale: float = 2.0,
        tell: Callable[[float], None] = tell_nobody,
    ) -> Tensor:
        """Integrate from noise to latents [N, L, h, w] of unit embeddings, with Euler steps.

        Args:
            condition_ND: unit embeddings.
            generator: draws the noise.
            num_steps: of Euler; each calls the network twice, or once if guidance_scale is 1.
            guidance_scale: classifier-free; 1 follows the condition as learnt, more exaggerates it.
            tell: called with the share of each step when it is done.
        """
        num = len(condition_ND)
        latent_NLhw = self.start(num, self.latent_shape[1], generator)
        latent_NLhw = latent_NLhw.to(condition_ND.device, memory_format=torch.channels_last)
        for step in range(num_steps):
            time_N = torch.full((num,), step / num_steps, device=condition_ND.device)  # 0 is noise
            velocity = self.velocity(latent_NLhw, time_N, condition_ND)
            if guidance_scale != 1:
                free = self.velocity(latent_NLhw, time_N, torch.zeros_like(condition_ND))
                velocity = free + guidance_scale * (velocity - free)
            latent_NLhw = latent_NLhw + velocity / num_steps
            tell(1 / num_steps)
        return latent_NLhw * self.sampled_L11

    def decode(self, latent_NLhw: Tensor) -> Tensor:
        """Decode latents to RGB images [N, 3, H, W] in [0, 1]; differentiable."""
        with mixed_precision(latent_NLhw.device.type):
            cells = self.autoencoder.decode(latent_NLhw * self.latent_scale).sample
        image_NCHW = F.pixel_shuffle(cells.float(), self.shuffled_px)
        return (image_NCHW * 0.5 + 0.5).clamp(0, 1)  # diffusers' pictures lie in [-1, 1]


def from_eight_bits(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Restore weights that are stored as int8 with a scale a row; other tensors stay."""
    scales = {name: value for name, value in tensors.items() if name.endswith(SCALE_SUFFIX)}
    plain = {name: value for name, value in tensors.items() if name not in scales}
    for name, scale in scales.items():
        weight = plain[name.removesuffix(SCALE_SUFFIX)].float()
        scale = scale.float().reshape(-1, *(1,) * (weight.ndim - 1))
        plain[name.removesuffix(SCALE_SUFFIX)] = weight * scale
    return plain


def load_decoder(
    folder: Path = assets.DECODER, device: str = "cpu", image_size_px: int = 0
) -> Decoder:
    """Load a decoder folder: decoder.json, autoencoder.safetensors, prior.safetensors.

    Images that are optimised may have a side `image_size_px`; 0 takes the prior's, the only one
    that it samples.

    Raises:
        ConfigError: a file is missing, or the autoencoder cannot make images of that size.
    """
    try:
        settings = json.loads((folder / "decoder.json").read_text(encoding="utf-8"))
        autoencoder = AutoencoderTiny(**settings["autoencoder"])
        prior = UNet2DModel(**settings["prior"])
        autoencoder.load_state_dict(load_file(folder / "autoencoder.safetensors"))
        prior.load_state_dict(from_eight_bits(load_file(folder / "prior.safetensors")))
    except FileNotFoundError as error:
        raise ConfigError(
            "decoder is incomplete", where=str(error.filename or folder), hint="install again"
        ) from error
    decoder = Decoder(
        autoencoder.to(device),
        prior.to(device),
        int(settings["image_size_px"]),
        float(settings["latent_scale"]),
        settings.get("sampled_shares", [1.0]),
    )
    if image_size_px:
        decoder.resize(image_size_px)
    return decoder
