"""What a synthesizer is made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dfkd_edge.artifacts import PromptSet
from dfkd_edge.config import SynthesisConfig
from dfkd_edge.interfaces import StageContext
from dfkd_edge.run_key import synthesis_content
from dfkd_edge.synthesis.exemplars import DrawingMemory
from dfkd_edge.teacher import Teacher

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
