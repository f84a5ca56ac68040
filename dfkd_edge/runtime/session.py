"""What every session of the device runtime takes and gives, whichever library runs the model.

Shape suffixes: N images, H rows, W columns, C = 3 channels, K classes, D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

TO_INSTALL = "apt-get install python3-libnvinfer"
"""JetPack's TensorRT is a Debian package, for the system's Python alone."""


class Outputs(NamedTuple):
    """What the model says about a batch."""

    logits: NDArray[np.float32]
    """[N, K]"""
    probabilities: NDArray[np.float32]
    """[N, K]"""
    embedding: NDArray[np.float32]
    """[N, D]"""


class Session(Protocol):
    """A loaded model."""

    backend: str
    """`tensorrt` or `onnxruntime`."""
    version: str
    """Version of the backend."""
    settings: dict[str, object]
    """Threads, provider, engine flags: what a latency depends on."""
    size_bytes: int
    """Of the file that runs: the graph or the engine."""

    def run(self, images_NHWC: NDArray[np.uint8]) -> Outputs:
        """Classify any number of RGB images of the model's own size."""

    def close(self) -> None:
        """Free the model."""


@dataclass(frozen=True)
class SessionRequest:
    """Which model to run, and how."""

    model: Path
    """ONNX graph."""
    precision: str = "fp32"
    """What it is computed in: `fp32`, `fp16` or `int8`. TensorRT 11 reads it from the graph."""
    backend: str = "auto"
    """`auto` takes TensorRT where it works."""
    num_threads: int = 0
    """CPU threads of onnxruntime; 0 takes all cores."""
    batch: tuple[int, int, int] = (1, 1, 1)
    """Smallest, usual and largest batch of an engine, where the graph's is dynamic."""
    cache: Path | None = None
    """Folder of built engines; None takes the user's cache."""
    full_range: bool = False
    """Whether INT8 weights use all eight bits; x86 without VNNI then computes in float."""
    use_dla: bool = False
    """Whether an engine is for DLA core 0, with the GPU for what that cannot compute."""
    workspace_bytes: int = 1 << 30
    """Scratch memory that an engine's builder may take; a second try takes a quarter."""

    @property
    def is_for_dla(self) -> bool:
        """Whether any layer may go to the DLA, which computes FP16 and INT8 alone."""
        return self.use_dla and self.precision != "fp32"


def in_batches(
    images_NHWC: NDArray[np.uint8],
    fixed_batch: int,
    max_batch: int,
    run_batch: Callable[[NDArray[np.uint8]], Outputs],
) -> Outputs:
    """Cut any number of images into batches that the model takes.

    Args:
        images_NHWC: at least one image.
        fixed_batch: the only batch that the model takes, or 0; the last one is filled up.
        max_batch: the largest one that it takes.
        run_batch: runs one batch.
    """
    if len(images_NHWC) == max_batch:
        return run_batch(images_NHWC)  # as when timed: nothing is copied
    parts = []
    for start in range(0, len(images_NHWC), max_batch):
        part = images_NHWC[start : start + max_batch]
        missing = fixed_batch - len(part)
        filled = np.concatenate([part, np.repeat(part[-1:], missing, 0)]) if missing > 0 else part
        parts.append(Outputs(*(array[: len(part)] for array in run_batch(filled))))
    return Outputs(*(np.concatenate(arrays) for arrays in zip(*parts)))
