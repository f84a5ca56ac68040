"""The table of synthesizers. A new one is a file with its class, an entry here, and its name in
`SynthesisMethod` of the settings, which lie below and cannot import this.

Each method imports its own file when it is called: the table is read before torch and
numpy are loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dfkd_edge import assets
from dfkd_edge.config.settings import MINI, SynthesisConfig, SynthesisMethod
from dfkd_edge.runs.key import content_of

if TYPE_CHECKING:
    from dfkd_edge.interfaces import Synthesizer
    from dfkd_edge.networks.teacher import Teacher
    from dfkd_edge.networks.weights import HubWeights
    from dfkd_edge.synthesis.setup import SynthesisSetup, SynthesizerEntry


class _OfDecoder:
    """What synthesizers share that search latents of a decoder."""

    def content(self, config: SynthesisConfig) -> str:
        return content_of(assets.DECODER if config.decoder == MINI else config.decoder)

    def weights(self, config: SynthesisConfig) -> Iterable[HubWeights]:
        from dfkd_edge.synthesis.decoders import decoder_weights

        return decoder_weights(config.decoder)

    def require(self, teacher: Teacher, config: SynthesisConfig) -> None:
        from dfkd_edge.synthesis.decoders import load_latent_decoder

        if config.decoder != MINI or config.image_size_px:  # ours is here, and fits its own size
            load_latent_decoder(config, teacher)


class _Amortized(_OfDecoder):
    shard_size = 128

    def load(self, setup: SynthesisSetup) -> Synthesizer:
        from dfkd_edge.synthesis.amortized import load_amortized

        return load_amortized(setup)


class _PerImage(_OfDecoder):
    shard_size = 16  # an image takes hundreds of passes through decoder and teacher

    def load(self, setup: SynthesisSetup) -> Synthesizer:
        from dfkd_edge.synthesis.per_image import load_per_image

        return load_per_image(setup)


class _Diffusion:
    shard_size = 128

    def content(self, config: SynthesisConfig) -> str:
        return content_of(config.pipeline)

    def weights(self, config: SynthesisConfig) -> Iterable[HubWeights]:
        from dfkd_edge.synthesis.diffusion import pipeline_weights

        return pipeline_weights(config.pipeline)

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
