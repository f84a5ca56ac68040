"""The embedded decoder: an image prior in the manner of unCLIP, made of diffusers classes.

A small `UNet2DModel` turns noise into the latent of a picture, conditioned on a point of the
teacher's embedding space (flow matching, Lipman et al., ICLR 2023); an `AutoencoderTiny` decodes
the latent to pixels. Both were trained once, on named pictures (examples/embedded_teacher); at run
time they only sample.

Shape suffixes: N images, D = 256 embedding width, L latent channels, h, w latent rows and columns,
H, W pixel rows and columns.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny, UNet2DModel
from safetensors.torch import load_file
from torch import Tensor

from dfkd_edge.errors import ConfigError
from dfkd_edge.mixed_precision import mixed_precision


class Decoder:
    """Samples pictures around points of the teacher's embedding space."""

    def __init__(self, autoencoder: AutoencoderTiny, prior: UNet2DModel, settings: dict[str, Any]):
        """Freeze both networks.

        Args:
            autoencoder: pixels in [0, 1] to latents and back.
            prior: velocity network; its class embedding takes the condition.
            settings: image_size_px, latent_scale, gap (from decoder.json).
        """
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self.prior = prior.eval().requires_grad_(False)
        self.autoencoder.to(memory_format=torch.channels_last)
        self.prior.to(memory_format=torch.channels_last)
        self.image_size_px = int(settings["image_size_px"])
        self.latent_scale = float(settings["latent_scale"])
        config: Any = prior.config
        self.latent_shape = (int(config.in_channels), *(int(config.sample_size),) * 2)

    @property
    def embed_dim(self) -> int:
        """Width D of the condition."""
        config: Any = self.prior.config
        return int(config.block_out_channels[0]) * 4

    def mismatch(self, embed_dim: int) -> ConfigError:
        """Say that this decoder does not understand a teacher's embeddings."""
        return ConfigError(
            f"the decoder takes embeddings of width {self.embed_dim}, not {embed_dim}",
            where="--synthesis amortized",
            hint="the embedded decoder belongs to the embedded teacher: use --teacher mini",
        )

    def velocity(self, latent_NLhw: Tensor, time_N: Tensor, condition_ND: Tensor) -> Tensor:
        """Flow velocity at times in [0, 1] (0 = noise); zero rows of the condition mean "any"."""
        scaled_ND = condition_ND * self.embed_dim**0.5
        with mixed_precision(latent_NLhw.device.type):
            velocity: Tensor = self.prior(
                latent_NLhw, time_N * 1000, class_labels=scaled_ND, return_dict=False
            )[0]
        return velocity.float()

    @torch.no_grad()
    def sample(
        self,
        condition_ND: Tensor,
        generator: torch.Generator,
        num_steps: int = 10,
        guidance_scale: float = 2.0,
    ) -> Tensor:
        """Integrate from noise to latents with Euler steps and classifier-free guidance.

        Args:
            condition_ND: unit embeddings.
            generator: draws the noise.
            num_steps: network calls are twice as many, unless guidance_scale is 1.
            guidance_scale: 1 follows the condition as learnt; more exaggerates it.

        Returns:
            Latents [N, L, h, w].
        """
        num = len(condition_ND)
        latent_NLhw = torch.randn((num, *self.latent_shape), generator=generator)
        latent_NLhw = latent_NLhw.to(condition_ND.device, memory_format=torch.channels_last)
        for step in range(num_steps):
            time_N = torch.full((num,), step / num_steps, device=condition_ND.device)
            velocity = self.velocity(latent_NLhw, time_N, condition_ND)
            if guidance_scale != 1:
                free = self.velocity(latent_NLhw, time_N, torch.zeros_like(condition_ND))
                velocity = free + guidance_scale * (velocity - free)
            latent_NLhw = latent_NLhw + velocity / num_steps
        return latent_NLhw

    def decode(self, latent_NLhw: Tensor) -> Tensor:
        """Decode latents to RGB images [N, 3, H, W] in [0, 1]; differentiable."""
        with mixed_precision(latent_NLhw.device.type):
            image = self.autoencoder.decode(latent_NLhw * self.latent_scale).sample
        return F.sigmoid(image.float())


def decoder_folder() -> Path:
    """Where the embedded decoder lies."""
    return Path(str(files("dfkd_edge.assets"))) / "decoder"


def load_decoder(folder: Path | None = None, device: str = "cpu") -> Decoder:
    """Load a decoder folder: decoder.json, autoencoder.safetensors, prior.safetensors.

    Raises:
        ConfigError: a file is missing.
    """
    folder = folder or decoder_folder()
    try:
        settings = json.loads((folder / "decoder.json").read_text(encoding="utf-8"))
        autoencoder = AutoencoderTiny(**settings["autoencoder"])
        prior = UNet2DModel(**settings["prior"])
        autoencoder.load_state_dict(load_file(folder / "autoencoder.safetensors"))
        prior.load_state_dict(load_file(folder / "prior.safetensors"))
    except FileNotFoundError as error:
        raise ConfigError(
            "decoder is incomplete", where=str(error.filename or folder), hint="install again"
        ) from error
    return Decoder(autoencoder.to(device), prior.to(device), settings)
