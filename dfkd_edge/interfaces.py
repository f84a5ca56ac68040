"""The few Protocols, and what stages are given besides artifacts: where to write, whom to tell.

Shape suffixes: N images, S side, H rows, W columns, C = 3 channels, K classes, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from dfkd_edge.artifacts import Bytes, Floats, ModelFile, StudentArtifact
from dfkd_edge.config.settings import ExportConfig
from dfkd_edge.target_profiles.profile import Feed, TargetProfile

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

    logits: NDArray[np.float32]  # [N, K]
    probabilities: NDArray[np.float32]  # [N, K], rows sum to 1
    embedding: NDArray[np.float32]  # [N, D], unit rows


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

    target_ND: Tensor  # Unit prompt embeddings
    label_N: Tensor  # The asked class
    style_N: Tensor  # The asked style
    generator: Generator  # Every random number of these candidates
    tell: Callable[[float], None] = tell_nobody
    """Called as work goes on with the share of it done since the last call; at most 1 in all."""

    def of_rows(self, rows: Tensor | slice, share: float) -> SynthesisBatch:
        """Return the batch of some prompts, whose progress counts as `share` of this one's.

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

    def split(self, index: int, count: int) -> WorkShare:
        """Return the part of one of `count` processes that share it."""
        return WorkShare(self.index + self.count * index, self.count * count)

    def numbers(self, num_shards: int) -> range:
        """Return the numbers of its shards."""
        return range(self.index, num_shards, self.count)


class SynthesizedImages(NamedTuple):
    """What a synthesizer makes of a batch, on the teacher's device."""

    image_NCHW: Tensor  # RGB [N, 3, H, W] in [0, 1]
    embedding_ND: Tensor  # The teacher's, unit rows
    drawing_N: Tensor | None = None
    """Which of its class's drawings an image shows, -1: none; None where no image shows one."""


class Synthesizer(Protocol):
    """Makes candidate images of prompts."""

    def __call__(self, batch: SynthesisBatch) -> SynthesizedImages:
        """Make one image a prompt."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Ranges of a graph's activations on calibration images, and how far they can be trusted."""

    ranges: Mapping[str, tuple[float, float]]
    """Tensor -> lowest and highest value that eight bits should tell apart."""
    channel_means: Mapping[str, Floats]
    """Tensor -> mean of each channel, which bias correction needs."""
    method: str  # How the ranges follow from the values, such as `percentile 99.9`
    num_images: int
    sha256: str  # Of the images, over shape and pixels, in hex
    half_difference: float
    """Largest difference of a range between two disjoint halves of the images, relative."""
    growth: Mapping[str, float]
    """Number of images, fewer than all -> largest relative change of a range from them to all."""


@dataclass(frozen=True, slots=True)
class OracleReport:
    """What a parser and builder made of a graph."""

    num_layers: int  # Of the network as it was parsed
    engine_bytes: int
    seconds: float
    version: str  # Of the library
    parser: str  # What parsed and built, in words: no target's own TensorRT, and on no device


class StudentExporter(Protocol):
    """Student -> graph: writes the FP32 graph that all others are made of."""

    def export(
        self, student: StudentArtifact, target: TargetProfile, config: ExportConfig, path: Path
    ) -> ModelFile:
        """Write the graph to `path`.

        Raises:
            ConversionError: the student cannot be a graph that this target reads.
        """


class GraphExporter(Protocol):
    """Graph -> graph: another precision or format; packages of others add this kind."""

    def export(
        self, model: ModelFile, target: TargetProfile, config: ExportConfig, path: Path
    ) -> ModelFile:
        """Write the converted model to `path`.

        Raises:
            ConversionError: the model cannot be converted for this target.
        """


class CastingExporter(GraphExporter, Protocol):
    """Graph -> graph in half precision, for a target or to measure what FP16 costs."""

    def cast(self, fp32: ModelFile, path: Path) -> ModelFile:
        """Write the cast graph to `path`, whatever the target computes in.

        Raises:
            ConversionError: a weight is beyond the range of FP16.
        """


class VariantExporter(Protocol):
    """Graph -> the same network behind another input, with its probabilities alone."""

    def export(self, model: ModelFile, feed: Feed, temperature: float, path: Path) -> ModelFile:
        """Write the variant to `path`; its probabilities are those of logits over `temperature`.

        Raises:
            ConversionError: the graph is none of ours.
        """


class HeadExporter(Protocol):
    """Graph -> the same network with other classes."""

    def export(
        self, model: ModelFile, head_DK: Floats, class_names: Sequence[str], path: Path
    ) -> ModelFile:
        """Write the graph with another text head [D, K], of unit columns, to `path`.

        Raises:
            ConversionError: the graph is none of ours.
        """


class QuantizingExporter(Protocol):
    """Graph + calibration -> INT8 graph."""

    def quantizable_nodes(self, fp32: ModelFile, target: TargetProfile) -> list[str]:
        """Names of the layers that become INT8, in the graph's order.

        Raises:
            ConversionError: the target has no INT8.
        """

    def calibrate(
        self, fp32: ModelFile, image_NSSC: Bytes, target: TargetProfile, config: ExportConfig
    ) -> Calibration:
        """Measure the ranges of all tensors that INT8 may concern.

        Raises:
            ConfigError: fewer images than the target needs.
            ConversionError: the target has no INT8.
        """

    def export(
        self,
        fp32: ModelFile,
        calibration: Calibration,
        target: TargetProfile,
        config: ExportConfig,
        path: Path,
        float_nodes: frozenset[str] = frozenset(),
    ) -> ModelFile:
        """Write the INT8 graph to `path`; layers named in `float_nodes` stay float.

        Raises:
            ConversionError: the target has no INT8, a layer is unknown, or no valid graph results.
        """


class GraphRunner(Runner, Protocol):
    """Runs a converted model on the host."""

    computes_in_float: bool  # Whether INT8 is computed in float, which says nothing of its speed


class RunnerMaker(Protocol):
    """Opens converted models."""

    def __call__(self, model: ModelFile, num_threads: int, for_answers: bool) -> GraphRunner:
        """Open a model.

        Args:
            model: the file, with its precision.
            num_threads: of the CPU; 0 takes all cores.
            for_answers: not to be timed: INT8 meant for other machines may be computed in float.

        Raises:
            ConversionError: the runtime refuses the file, or none here reads its format.
        """


class GraphOracle(Protocol):
    """The parser and builder of a device's runtime, asked on the host."""

    def available(self) -> bool:
        """Whether it is installed."""

    def build(self, path: Path, batch: tuple[int, int, int]) -> OracleReport:
        """Parse a graph and build an engine of it, of the smallest, usual and largest batch.

        Raises:
            ConversionError: a node is refused, which is named, or the builder fails.
            EnvironmentLackingError: it cannot be loaded.
        """
