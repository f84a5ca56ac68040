"""Finds decoders by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dfkd_edge.artifacts import PromptSet
from dfkd_edge.config.settings import SynthesisConfig
from dfkd_edge.drawings.memory import DrawingMemory
from dfkd_edge.networks.teacher import MINI, Teacher
from dfkd_edge.runs.context import StageContext
from dfkd_edge.runs.key import synthesis_content
from dfkd_edge.synthesis.decoder import LatentDecoder, load_decoder


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


STAGE = "surrogates"


@dataclass(frozen=True, slots=True)
class SynthesisSetup:
    """The inputs of the stage."""

    prompts: PromptSet
    teacher: Teacher
    config: SynthesisConfig
    context: StageContext
    memory: DrawingMemory | None = None
    """Where its drawings were looked at already; None lets who needs them look."""

    @property
    def key(self) -> str:
        """Hash of all that the images depend on."""
        teacher, prompts = self.teacher, self.prompts
        content = synthesis_content(self.config), prompts.style_labels, prompts.diversity
        return self.context.stage_key(STAGE, self.config, teacher.key, *content)

    @property
    def folder(self) -> Path:
        """Where shards and checkpoints lie."""
        return self.context.run_dir.stage_dir(STAGE)
