"""What the stage is given, and what it asks of every synthesizer. Neither torch nor numpy here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dfkd_edge import assets
from dfkd_edge.config.settings import MINI, SynthesisConfig
from dfkd_edge.runs.key import content_of

if TYPE_CHECKING:
    from dfkd_edge.artifacts import PromptSet
    from dfkd_edge.drawings.memory import DrawingMemory
    from dfkd_edge.interfaces import Synthesizer
    from dfkd_edge.networks.teacher import Teacher
    from dfkd_edge.networks.weights import HubWeights
    from dfkd_edge.runs.context import StageContext

STAGE = "surrogates"


class SynthesizerEntry(ABC):
    """All that the program knows of a synthesizer; as written here, one with a latent decoder."""

    shard_size = 128  # Candidates a shard, and so what a kill may cost: seconds to minutes of work

    def content(self, config: SynthesisConfig) -> str:
        """Hash the local files that the images depend on; empty for a name of the hub."""
        return content_of(assets.DECODER if config.decoder == MINI else config.decoder)

    def weights(self, config: SynthesisConfig) -> Iterable[HubWeights]:
        """List the weights that come from the hub, fetched or not."""
        from dfkd_edge.synthesis.decoders import decoder_weights

        return decoder_weights(config.decoder)

    def require(self, teacher: Teacher, config: SynthesisConfig) -> None:
        """Check that it can be used, before hours are spent on what precedes it.

        Raises:
            DfkdEdgeError: it cannot.
        """
        from dfkd_edge.synthesis.decoders import load_latent_decoder

        if config.decoder != MINI or config.image_size_px:  # ours is here, and fits its own size
            load_latent_decoder(config, teacher)

    def stored_side_px(self, config: SynthesisConfig, teacher_side_px: int) -> int:
        """Side of the images that it makes; the embedded prior's is its own."""
        return config.image_size_px or teacher_side_px

    @abstractmethod
    def load(self, setup: SynthesisSetup) -> Synthesizer:
        """Load, or train, what makes the images.

        Raises:
            DfkdEdgeError: weights are missing or damaged, or cannot make images of that size.
        """


@dataclass(frozen=True, slots=True)
class SynthesisSetup:
    """The inputs of the stage."""

    prompts: PromptSet
    teacher: Teacher
    config: SynthesisConfig
    context: StageContext
    entry: SynthesizerEntry
    memory: DrawingMemory | None = None  # Of drawings, where it is open already

    @property
    def key(self) -> str:
        """Hash of all that the images depend on."""
        content = self.entry.content(self.config)
        prompts = self.prompts.style_labels, self.prompts.diversity
        return self.context.stage_key(STAGE, self.config, self.teacher.key, content, *prompts)

    @property
    def folder(self) -> Path:
        """Where shards and checkpoints lie."""
        return self.context.run_dir.stage_dir(STAGE)

    @property
    def num_shards(self) -> int:
        """Shards of all candidates."""
        return -(-self.config.num_images // self.entry.shard_size)  # rounded up

    def size_of_shard(self, number: int) -> int:
        """Candidates of a shard; the last one may have fewer."""
        size = self.entry.shard_size
        return min(size, self.config.num_images - number * size)
