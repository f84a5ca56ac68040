"""The few Protocols, and what stages are given besides artifacts: where to write, whom to tell.

Shape suffixes: N images, H rows, W columns, C = 3 channels, K classes, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dfkd_edge.artifacts import ModelFile
from dfkd_edge.config.settings import ExportConfig
from dfkd_edge.target_profiles.profile import TargetProfile

if TYPE_CHECKING:
    from torch import Generator, Tensor


class Progress(Protocol):
    """The bar of one stage."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Move on; `note` is shown beside the bar."""


class Reporter(Protocol):
    """Tells the user what happens; quiet, JSON or a rich console."""

    def stage(self, name: str, total: int, done: int = 0) -> AbstractContextManager[Progress]:
        """Open the bar of a stage; `done` counts what an earlier run has finished."""

    def note(self, text: str) -> None:
        """Say one line of plain text that stays."""


@dataclass(frozen=True, slots=True)
class ModelOutputs:
    """What every rung of the conversion ladder gives for a batch."""

    logits: NDArray[np.float32]
    """[N, K]"""
    probabilities: NDArray[np.float32]
    """[N, K], rows sum to 1."""
    embedding: NDArray[np.float32]
    """[N, D], unit rows."""


class Runner(Protocol):
    """Runs one model, whatever it was converted to."""

    name: str

    def __call__(self, image_NHWC: NDArray[np.uint8]) -> ModelOutputs:
        """Classify RGB images of the model's own size."""


def tell_nobody(share: float) -> None:
    """Ignore a share of work that no progress bar shows."""


@dataclass(frozen=True, slots=True)
class SynthesisBatch:
    """The prompts of some candidates, on the teacher's device."""

    target_ND: Tensor
    """Unit prompt embeddings."""
    label_N: Tensor
    """The asked class."""
    style_N: Tensor
    """The asked style."""
    generator: Generator
    """Every random number of these candidates."""
    tell: Callable[[float], None] = tell_nobody
    """Called as work goes on with the share of it done since the last call; at most 1 in all."""

    def of_rows(self, rows: Tensor | slice, share: float) -> SynthesisBatch:
        """Take some of the prompts, for what is this share of the batch's work.

        Parts have the batch's generator, so the order in which they are used matters.
        """
        whole = self.tell
        return SynthesisBatch(
            self.target_ND[rows],
            self.label_N[rows],
            self.style_N[rows],
            self.generator,
            lambda of_part: whole(share * of_part),
        )


@dataclass(frozen=True, slots=True)
class WorkShare:
    """Which shards one of several processes makes: every `count`-th, from `index` on."""

    index: int = 0
    count: int = 1


class SynthesizedImages(NamedTuple):
    """What a synthesizer makes of a batch, on the teacher's device."""

    image_NCHW: Tensor
    """RGB [N, 3, H, W] in [0, 1]."""
    embedding_ND: Tensor
    """The teacher's, unit rows."""
    drawing_N: Tensor | None = None
    """Which of its class's drawings an image shows, -1: none; None where no image shows one."""


class Synthesizer(Protocol):
    """Makes candidate images of prompts."""

    def __call__(self, batch: SynthesisBatch) -> SynthesizedImages:
        """Make one image a prompt."""


class Exporter(Protocol):
    """Converts one model file into the next."""

    name: str

    def export(
        self, model: ModelFile, target: TargetProfile, config: ExportConfig, path: Path
    ) -> ModelFile:
        """Write the converted model to `path`.

        Raises:
            ConversionError: the model cannot be converted for this target.
        """
