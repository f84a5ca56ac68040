"""A loaded model: what every session takes and gives, and the one under onnxruntime.

Shape suffixes: N images, H rows, W columns, C = 3 channels, K classes, D embedding width.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from dfkd_edge.runtime import limits
from dfkd_edge.runtime.device import TO_INSTALL, cpu_saturates, num_cores
from dfkd_edge.runtime.faults import Fault, LackingFault, UsageFault
from dfkd_edge.runtime.graph_guard import read_outline

if TYPE_CHECKING:
    from numpy.typing import NDArray


PLACE_IN_SOURCE = re.compile(r"/\S+\.(?:cc|h):\d+ .*?\) (?=[A-Z])")
MAX_REASON = 1_000  # Characters: a path and the library's own source come before what is wrong
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class Outputs(NamedTuple):
    """What the model says about a batch."""

    logits: NDArray[np.float32]  # [N, K]
    probabilities: NDArray[np.float32]  # [N, K]
    embedding: NDArray[np.float32]  # [N, D]


class Session(Protocol):
    """A loaded model."""

    backend: str  # `tensorrt` or `onnxruntime`
    version: str  # Version of the backend
    settings: dict[str, object]  # Threads, provider, engine flags: what a latency depends on
    size_bytes: int  # Of the file that runs: the graph or the engine

    def run(self, images_NHWC: NDArray[np.uint8]) -> Outputs:
        """Classify any number of RGB images of the model's own size."""

    def close(self) -> None:
        """Free the model."""


@dataclass(frozen=True)
class SessionRequest:
    """Which model to run, and how."""

    model: Path  # ONNX graph
    precision: str = "fp32"
    """What it is computed in: `fp32`, `fp16` or `int8`. TensorRT 11 reads it from the graph."""
    backend: str = "auto"  # `auto` takes TensorRT where it works
    num_threads: int = 0  # CPU threads of onnxruntime; 0 takes all cores
    batch: tuple[int, int, int] = (1, 1, 1)
    """Smallest, usual and largest batch of an engine, where the graph's is dynamic."""
    cache: Path | None = None  # Folder of built engines; None takes the user's cache
    full_range: bool = False
    """Whether INT8 weights use all eight bits; x86 without VNNI then computes in float."""
    use_dla: bool = False
    """Whether an engine is for DLA core 0, with the GPU for what that cannot compute."""
    workspace_bytes: int = 1 << 30
    """Scratch memory that an engine's builder may take; a second try takes a quarter."""
    device: str = "cpu"
    """Where onnxruntime computes: `cpu`, or `cuda` and `cuda:1` as torch has them."""

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
    """Run at least one image in batches of `max_batch`; the last is filled up to a fixed batch."""
    if len(images_NHWC) == max_batch:
        return run_batch(images_NHWC)  # as when timed: nothing is copied
    parts = []
    for start in range(0, len(images_NHWC), max_batch):
        part = images_NHWC[start : start + max_batch]
        missing = fixed_batch - len(part)
        filled = np.concatenate([part, np.repeat(part[-1:], missing, 0)]) if missing > 0 else part
        parts.append(Outputs(*(array[: len(part)] for array in run_batch(filled))))
    return Outputs(*(np.concatenate(arrays) for arrays in zip(*parts)))  # strict= is of Python 3.10


class OnnxSession:
    """A graph under onnxruntime, on the CPU or a GPU."""

    backend = "onnxruntime"

    def __init__(self, request: SessionRequest, in_float: bool | None = None) -> None:
        """Load the graph; `in_float` computes INT8 in float, None where this CPU's sums saturate.

        Raises:
            LackingFault: onnxruntime is not installed, or cannot compute on the device.
            UsageFault: nobody computes on the device.
            Fault: onnxruntime cannot load the graph.
        """
        onnxruntime, providers = _import_onnxruntime(), providers_of(request.device)
        if in_float is None:
            in_float = request.precision == "int8" and request.full_range and cpu_saturates()
        outline = read_outline(request.model)  # what may not end is refused before it is loaded
        try:
            with limits.memory_bounded() if request.device == "cpu" else contextlib.nullcontext():
                asked = (str(request.model), request.num_threads, in_float, providers, True)
                self._session = limits.within(limits.MAX_RUN_S, partial(open_graph, *asked))
        except Exception as error:  # its exceptions share no public base
            raise _refused("load", error, request.model) from error
        provider = str(self._session.get_providers()[0])
        if request.device != "cpu" and provider == CPU:  # it only logs that it has no device
            raise _no_device(request.device, "onnxruntime's CUDA provider did not start")
        self.version = str(onnxruntime.__version__)
        self.size_bytes = request.model.stat().st_size
        self.settings: dict[str, object] = {
            "provider": provider,
            "threads": request.num_threads or num_cores(),
            # the CUDA provider has no INT8 kernels for Q/DQ: TensorRT has them
            "int8_in_float": in_float or (request.precision == "int8" and provider != CPU),
        }
        self._input = self._session.get_inputs()[0]
        found = {output.name for output in self._session.get_outputs()}
        is_image = self._input.name == "image" and len(self._input.shape) == 4
        if not is_image or not set(Outputs._fields) <= found & set(outline.outputs):
            raise Fault("graph has other inputs or outputs than ours", str(request.model))
        self._deadline, self._model = limits.Deadline(onnxruntime.RunOptions()), request.model
        first = self._input.shape[0]  # a name where the batch is dynamic
        self._fixed_batch = first if isinstance(first, int) else 0
        self._max_batch = self._fixed_batch or request.batch[2]
        self._has_run = False

    def run(self, images_NHWC: NDArray[np.uint8]) -> Outputs:
        """Classify any number of images."""
        return in_batches(images_NHWC, self._fixed_batch, self._max_batch, self._run_batch)

    def _run_batch(self, images_NHWC: NDArray[np.uint8]) -> Outputs:
        feed = {"image": as_fed(self._session, images_NHWC)}
        names = list(Outputs._fields)
        try:
            with self._deadline as options:
                run = partial(self._session.run, names, feed, options)
                # the first run tells whether each node ends; a thread for each would cost latency
                values = run() if self._has_run else limits.within(limits.MAX_RUN_S, run)
        except Exception as error:  # its exceptions share no public base
            raise _refused("run", error, self._model) from error
        self._has_run = True
        return Outputs(*values)

    def close(self) -> None:
        """Free the graph."""
        del self._session


def _refused(verb: str, error: Exception, model: Path) -> Fault:
    text = " ".join(str(error).split()) or type(error).__name__
    reason = PLACE_IN_SOURCE.sub("", text)[:MAX_REASON]
    return Fault(f"onnxruntime cannot {verb} the model: {reason}", str(model))


def as_fed(session: Any, images_NHWC: NDArray[np.uint8]) -> NDArray[Any]:
    """Give images the type that a graph takes: TensorRT before 8.5 has no bytes as input."""
    takes_floats = session.get_inputs()[0].type == "tensor(float)"
    return images_NHWC.astype(np.float32) if takes_floats else images_NHWC


def providers_of(device: str) -> list[Any]:
    """Find onnxruntime's providers for a device named as torch names it, the wanted one first.

    Raises:
        LackingFault: onnxruntime is not installed, or is one without CUDA.
        UsageFault: it is neither a CPU nor a CUDA device.
    """
    if device == "cpu":
        return [CPU]
    named = re.fullmatch(r"cuda(?::(\d+))?", device)
    if not named:
        raise UsageFault(f"no device '{device}'", "--device", "cpu, cuda or cuda:1")
    onnxruntime = _import_onnxruntime()
    if CUDA not in onnxruntime.get_available_providers():
        raise _no_device(device, f"onnxruntime {onnxruntime.__version__} has no CUDA provider")
    return [(CUDA, {"device_id": int(named[1] or 0)}), CPU]


def _no_device(device: str, why: str) -> LackingFault:
    hint = "pip install onnxruntime-gpu in its place, or --device cpu"
    return LackingFault(f"device '{device}' cannot be used: {why}", "--device", hint)


def open_graph(
    model: str | bytes,
    num_threads: int,
    in_float: bool = False,
    providers: list[Any] | None = None,
    is_bounded: bool = False,
) -> Any:
    """Open any graph in onnxruntime.

    Args:
        model: its path, or its content.
        num_threads: 0 takes all cores.
        in_float: compute in float what is between DQ and Q, as exact as 32-bit sums.
        providers: as of `providers_of`; None takes the CPU.
        is_bounded: whether its tensors come from an arena that ends before the memory does.

    Raises:
        LackingFault: onnxruntime is not installed.
        Exception: onnxruntime refuses the graph; its errors share no public base class.
    """
    onnxruntime = _import_onnxruntime()
    options = onnxruntime.SessionOptions()
    # else a file named .ort is read as another format than `read_outline` looked at
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.intra_op_num_threads = num_threads  # 0 lets onnxruntime take all cores
    # errors are raised too, and its log writes names of a graph to the terminal as they are; of a
    # GPU only the log says why it did not start
    options.log_severity_level = 4 if providers in (None, [CPU]) else 3
    if in_float:
        # keeps Q/DQ around float kernels: exact, where the kernels for INT8 would clip
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if is_bounded:
        limits.use_bounded_arena(onnxruntime, options)
    return onnxruntime.InferenceSession(model, options, providers=providers or [CPU])


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        # the newest on PyPI for aarch64 and the Python of JetPack 5 and 6
        newest = {(3, 8): "==1.19.2", (3, 9): "==1.19.2", (3, 10): "==1.23.2"}
        pin = newest.get(sys.version_info[:2], "")
        here = "Python {}.{}".format(*sys.version_info[:2])
        hint = f"{TO_INSTALL} (Jetson), or pip install 'onnxruntime{pin}'"
        what = "neither TensorRT nor onnxruntime can be imported"
        raise LackingFault(what, here, hint) from error
    return onnxruntime


def model_input(side_px: int, batch: int) -> NDArray[np.uint8]:
    """Make a batch to time with: a fixed pattern, since time does not depend on the picture."""
    # multiplicative hashing (Knuth): the high byte of each product looks random
    pattern = np.arange(batch * side_px * side_px * 3, dtype=np.uint32) * 2654435761 >> 24
    return pattern.astype(np.uint8).reshape(batch, side_px, side_px, 3)
