"""Finds decoders of latents by name, and says what they need from the hub."""

from collections.abc import Iterator
from pathlib import Path

from dfkd_edge.config.settings import MINI, SynthesisConfig
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.networks.weights import HubWeights
from dfkd_edge.synthesis.decoder import LatentDecoder, load_decoder

KNOWN_DECODERS = {"amused/amused-256/vqvae": 146_244_675}
"""Parameters of decoders that presets name; counted from their published configuration."""
DECODER_FILES = ("diffusion_pytorch_model.safetensors",)


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


def decoder_weights(name: str) -> Iterator[HubWeights]:
    """Give the weights of a decoder that `owner/name[/subfolder]` names on the hub."""
    if name == MINI or Path(name).exists() or not name.count("/"):
        return
    owner, repo, *folder = name.split("/")
    yield HubWeights(
        what=f"decoder {name}",
        repo=f"{owner}/{repo}",
        folder="/".join(folder),
        files=DECODER_FILES,
        num_parameters=KNOWN_DECODERS.get(name),
        pattern="/".join((*folder, "*")),
    )
