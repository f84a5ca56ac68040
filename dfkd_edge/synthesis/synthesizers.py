"""The table of synthesizers: a new one is a file of its own, an entry here, and its name in
`SynthesisMethod` of the settings, which lie below and cannot import this.

Methods import the file that they call: the table is read before torch and numpy are loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dfkd_edge.config.settings import SynthesisConfig, SynthesisMethod
from dfkd_edge.runs.key import content_of
from dfkd_edge.synthesis.setup import SynthesisSetup, SynthesizerEntry

if TYPE_CHECKING:
    from dfkd_edge.interfaces import Synthesizer
    from dfkd_edge.networks.teacher import Teacher
    from dfkd_edge.networks.weights import HubWeights


class _Amortized(SynthesizerEntry):
    def load(self, setup: SynthesisSetup) -> Synthesizer:
        from dfkd_edge.synthesis.amortized import load_amortized

        return load_amortized(setup)


class _PerImage(SynthesizerEntry):
    shard_size = 16  # an image takes hundreds of passes through decoder and teacher

    def load(self, setup: SynthesisSetup) -> Synthesizer:
        from dfkd_edge.synthesis.per_image import PerImageSynthesizer

        return PerImageSynthesizer(setup.teacher, setup.config, self.shard_size)


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
