"""Finds decoders by name."""

from __future__ import annotations

from dfkd_edge.config import SynthesisConfig
from dfkd_edge.errors import ConfigError
from dfkd_edge.synthesis.decoder import LatentDecoder, load_decoder
from dfkd_edge.teacher import MINI


def load_latent_decoder(config: SynthesisConfig, device: str) -> LatentDecoder:
    """Load the decoder of a configuration.

    Raises:
        ConfigError: it is unknown, or cannot make images of that size.
    """
    if config.decoder != MINI:
        raise ConfigError(f"unknown decoder '{config.decoder}'", where="synthesis.decoder")
    return load_decoder(device=device, image_size_px=config.image_size_px)
