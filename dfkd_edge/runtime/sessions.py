"""One model, ready to run: TensorRT where it is there, else onnxruntime.

Shape suffixes: N images, H rows, W columns, C = 3 channels, K classes, D embedding width.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from dfkd_edge.runtime.device import cpu_saturates, num_cores
from dfkd_edge.runtime.faults import Fault, LackingFault, UsageFault

if TYPE_CHECKING:
    from numpy.typing import NDArray

BACKENDS = ("auto", "tensorrt", "onnxruntime")
TO_INSTALL = "apt-get install python3-libnvinfer"


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
    settings: dict[str, Any]
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
    """What the graph is meant to be computed in."""
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
    """Whether an engine is for the DLA, with the GPU for what that cannot compute."""


def open_session(request: SessionRequest, say: Callable[[str], None]) -> Session:
    """Load a model; with TensorRT this may build an engine, which takes minutes the first time.

    Args:
        request: what to load.
        say: told what happens, a line at a time.

    Raises:
        LackingFault: neither backend is usable here.
        Fault: the model cannot be loaded.
    """
    if request.backend not in BACKENDS:
        raise UsageFault(f"no backend '{request.backend}'", "--backend", ", ".join(BACKENDS))
    if request.backend != "onnxruntime":
        from dfkd_edge.runtime.engine_session import open_engine, why_no_tensorrt

        lacking = why_no_tensorrt()
        if lacking is None:
            return open_engine(request, say)
        what, hint = lacking.what, lacking.hint
        if request.backend == "tensorrt":
            raise LackingFault("TensorRT is not usable here", what, hint)
        if _on_jetson():
            say(f"TensorRT is not usable here ({what}), onnxruntime is taken: {hint}")
    return OnnxSession(request)


def _on_jetson() -> bool:
    return Path("/etc/nv_tegra_release").exists()


class OnnxSession:
    """A graph under onnxruntime, on the CPU."""

    backend = "onnxruntime"

    def __init__(self, request: SessionRequest) -> None:
        """Load the graph.

        Raises:
            LackingFault: onnxruntime is not installed.
            Fault: onnxruntime cannot load the graph.
        """
        onnxruntime = _import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = request.num_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        in_float = request.precision == "int8" and request.full_range and cpu_saturates()
        if in_float:
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        try:
            self._session = onnxruntime.InferenceSession(
                str(request.model), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no public base
            reason = str(error).strip().splitlines()[0][:200]
            raise Fault(
                f"onnxruntime cannot load the model: {reason}", str(request.model)
            ) from error
        self.version = str(onnxruntime.__version__)
        self.size_bytes = request.model.stat().st_size
        self.settings = {
            "provider": "CPUExecutionProvider",
            "threads": request.num_threads or num_cores(),
            "int8_in_float": in_float,
        }
        self._input = self._session.get_inputs()[0]
        found = {output.name for output in self._session.get_outputs()}
        if self._input.name != "image" or not set(Outputs._fields) <= found:
            raise Fault("graph has other inputs or outputs than ours", str(request.model))
        first = self._input.shape[0]
        self._fixed_batch = first if isinstance(first, int) else 0
        self._max_batch = self._fixed_batch or request.batch[2]

    def run(self, images_NHWC: NDArray[np.uint8]) -> Outputs:
        """Classify any number of images."""
        return in_batches(images_NHWC, self._fixed_batch, self._max_batch, self._run_batch)

    def _run_batch(self, images_NHWC: NDArray[np.uint8]) -> Outputs:
        return Outputs(*self._session.run(list(Outputs._fields), {"image": images_NHWC}))

    def close(self) -> None:
        """Free the graph."""
        del self._session


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
        return run_batch(images_NHWC)
    parts = []
    for start in range(0, len(images_NHWC), max_batch):
        part = images_NHWC[start : start + max_batch]
        missing = fixed_batch - len(part)
        filled = np.concatenate([part, np.repeat(part[-1:], missing, 0)]) if missing > 0 else part
        parts.append(Outputs(*(array[: len(part)] for array in run_batch(filled))))
    return Outputs(*(np.concatenate(arrays) for arrays in zip(*parts)))


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        newest = {(3, 8): "==1.19.2", (3, 9): "==1.19.2", (3, 10): "==1.23.2"}
        pin = newest.get(sys.version_info[:2], "")
        raise LackingFault(
            "neither TensorRT nor onnxruntime can be imported",
            f"Python {sys.version_info[0]}.{sys.version_info[1]}",
            f"{TO_INSTALL} (Jetson), or pip install 'onnxruntime{pin}'",
        ) from error
    return onnxruntime


def model_input(side_px: int, batch: int) -> NDArray[np.uint8]:
    """Make a batch to time with: a fixed pattern, since time does not depend on the picture."""
    pattern = np.arange(batch * side_px * side_px * 3, dtype=np.uint32) * 2654435761 >> 24
    return pattern.astype(np.uint8).reshape(batch, side_px, side_px, 3)
