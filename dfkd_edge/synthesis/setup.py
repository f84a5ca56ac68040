"""What the stage, and every synthesizer, is given. Neither torch nor numpy here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dfkd_edge.config.settings import SynthesisConfig

if TYPE_CHECKING:
    from dfkd_edge.artifacts import PromptSet
    from dfkd_edge.drawings.memory import DrawingMemory
    from dfkd_edge.networks.memory import Parts
    from dfkd_edge.networks.teacher import Teacher
    from dfkd_edge.runs.context import StageContext

STAGE = "surrogates"


@dataclass(frozen=True, slots=True)
class SynthesisSetup:
    """The inputs of the stage."""

    prompts: PromptSet
    teacher: Teacher
    config: SynthesisConfig
    context: StageContext
    content: str  # Hash of the local files that the images depend on
    shard_size: int  # Candidates a shard
    stored_side_px: int  # Side of the images that are kept
    memory: DrawingMemory | None = None  # Of drawings, where it is open already

    @property
    def key(self) -> str:
        """Hash of all that the images depend on."""
        prompts = self.prompts.style_labels, self.prompts.diversity
        return self.context.stage_key(STAGE, self.config, self.teacher.key, self.content, *prompts)

    @property
    def folder(self) -> Path:
        """Where shards and checkpoints lie."""
        return self.context.run_dir.stage_dir(STAGE)

    @property
    def num_shards(self) -> int:
        """Shards of all candidates."""
        return -(-self.config.num_images // self.shard_size)  # rounded up

    def size_of_shard(self, number: int) -> int:
        """Candidates of a shard; the last one may have fewer."""
        return min(self.shard_size, self.config.num_images - number * self.shard_size)

    def parts(self, work: str, attempt: Callable[[int], object], limit: int) -> Parts:
        """As many images at a time, `limit` at most, as there is memory for; the run keeps it.

        `attempt` does the work on so many images; `work` names it in the user's words.
        """
        from dfkd_edge.networks.memory import images_that_fit, memory_budget, recorded_parts

        def find_size() -> int:
            device = self.teacher.device
            budget = memory_budget(device, self.config.memory_mib)
            return images_that_fit(attempt, device, budget, limit)

        return recorded_parts(work, STAGE, self.key, self.context, find_size)
