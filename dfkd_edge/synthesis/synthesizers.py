"""The table of synthesizers: a new one is a file of its own, an entry here, and its name in
`SynthesisMethod` of the settings, which lie below and cannot import this.

Methods import the file that they call: the table is read before torch and numpy are loaded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING

from dfkd_edge import assets
from dfkd_edge.config.settings import MINI, PIXELS, SynthesisConfig, SynthesisMethod
from dfkd_edge.runs.key import content_of

if TYPE_CHECKING:
    from dfkd_edge.interfaces import Synthesizer
    from dfkd_edge.networks.teacher import Teacher
    from dfkd_edge.networks.weights import HubWeights
    from dfkd_edge.synthesis.setup import SynthesisSetup


class SynthesizerEntry(ABC):
    """All that the program knows of a synthesizer; as written here, one with a latent decoder."""

    shard_size = 128  # Candidates a shard, and so what a kill may cost: seconds to minutes of work

    def content(self, config: SynthesisConfig) -> str:
        """Hash the local files that the images depend on; empty for a name of the hub."""
        if config.decoder == PIXELS:
            return ""
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


class _Amortized(SynthesizerEntry):
    def load(self, setup: SynthesisSetup) -> Synthesizer:
        from dfkd_edge.synthesis.amortized import load_amortized

        return load_amortized(setup)


class _PerImage(SynthesizerEntry):
    shard_size = 16  # an image takes hundreds of passes through decoder and teacher

    def load(self, setup: SynthesisSetup) -> Synthesizer:
        from dfkd_edge.synthesis.per_image import load_per_image

        return load_per_image(setup)


class _Diffusion(SynthesizerEntry):
    def content(self, config: SynthesisConfig) -> str:
        return content_of(config.pipeline)

    def weights(self, config: SynthesisConfig) -> Iterable[HubWeights]:
        from dfkd_edge.synthesis.diffusion import pipeline_weights

        return pipeline_weights(config.pipeline)

    def stored_side_px(self, config: SynthesisConfig, teacher_side_px: int) -> int:
        return config.image_size_px or round(teacher_side_px * 8 / 7)  # room for crops: 256 for 224

    def require(self, teacher: Teacher, config: SynthesisConfig) -> None:
        from dfkd_edge.synthesis.diffusion import require_pipeline

        require_pipeline(config.pipeline)

    def load(self, setup: SynthesisSetup) -> Synthesizer:
        from dfkd_edge.synthesis.diffusion import load_diffusion

        return load_diffusion(setup)


SYNTHESIZERS: dict[SynthesisMethod, SynthesizerEntry] = {
    "amortized": _Amortized(),
    "per-image": _PerImage(),
    "diffusion": _Diffusion(),
}
