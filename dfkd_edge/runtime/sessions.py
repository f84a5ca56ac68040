"""One model, ready to run: TensorRT where it is there, else onnxruntime.

Shape suffixes: N images, H rows, W columns, C = 3 channels, K classes, D embedding width.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dfkd_edge.runtime.device import cpu_saturates, num_cores
from dfkd_edge.runtime.faults import Fault, LackingFault, UsageFault
from dfkd_edge.runtime.session import TO_INSTALL, Outputs, Session, SessionRequest, in_batches

if TYPE_CHECKING:
    from numpy.typing import NDArray


BACKENDS = ("auto", "tensorrt", "onnxruntime")


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

    def __init__(self, request: SessionRequest, in_float: bool | None = None) -> None:
        """Load the graph.

        Args:
            request: what to load.
            in_float: whether INT8 is computed in float; None does so where 8-bit sums of this CPU
                would saturate.

        Raises:
            LackingFault: onnxruntime is not installed.
            Fault: onnxruntime cannot load the graph.
        """
        if in_float is None:
            in_float = request.precision == "int8" and request.full_range and cpu_saturates()
        try:
            self._session = open_graph(str(request.model), request.num_threads, in_float)
        except LackingFault:
            raise
        except Exception as error:  # its exceptions share no public base
            reason = str(error).strip().splitlines()[0][:200]
            raise Fault(
                f"onnxruntime cannot load the model: {reason}", str(request.model)
            ) from error
        self.version = str(_import_onnxruntime().__version__)
        self.size_bytes = request.model.stat().st_size
        self.settings: dict[str, object] = {
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


def open_graph(model: str | bytes, num_threads: int, in_float: bool = False) -> Any:
    """Open a graph in onnxruntime on the CPU.

    Args:
        model: its path, or its content.
        num_threads: 0 takes all cores.
        in_float: compute between Q and DQ in float, as exact as 32-bit sums.

    Raises:
        LackingFault: onnxruntime is not installed.
        Exception: onnxruntime refuses the graph; its errors share no public base class.
    """
    onnxruntime = _import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only: its warnings are about its own optimiser
    if in_float:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


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
