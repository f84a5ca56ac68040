"""Finds decoders by name."""

from __future__ import annotations

from dfkd_edge.config import SynthesisConfig
from dfkd_edge.synthesis.decoder import LatentDecoder, load_decoder
from dfkd_edge.teacher import MINI, Teacher


def load_latent_decoder(config: SynthesisConfig, teacher: Teacher) -> LatentDecoder:
    """Load the decoder of a configuration onto the teacher's device.

    Raises:
        ConfigError: it cannot make images of that size.
        ArtifactError: a checkpoint cannot be read.
        EnvironmentLackingError: the weights are not here and cannot be fetched.
    """
    device = str(teacher.device)
    if config.decoder == MINI:
        return load_decoder(device=device, image_size_px=config.image_size_px)
    from dfkd_edge.synthesis.vqgan import VqganDecoder, load_vq_model

    model = load_vq_model(config.decoder)
    return VqganDecoder(model.to(device), config.image_size_px or teacher.image_size_px)
