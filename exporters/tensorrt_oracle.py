"""NVIDIA's own ONNX parser and builder as a test of every exported graph; needs no GPU.

TensorRT for RTX (extra `oracle`) shares its ONNX importer with TensorRT and builds ahead of time
for a named GPU generation. SM 86 stands for Orin's SM 87, which it does not know. It says whether
a graph can be imported and built; not how fast or how accurate a Jetson will be.
"""

import ctypes
import importlib
import importlib.util
import time
from functools import cache, partial
from pathlib import Path
from typing import Any

from dfkd_edge.errors import ConversionError, EnvironmentLackingError
from dfkd_edge.interfaces import OracleReport
from dfkd_edge.runtime.engine_build import build_engine
from dfkd_edge.runtime.faults import Fault
from dfkd_edge.runtime.session import SessionRequest

BINDINGS, LIBRARIES = "tensorrt_rtx_bindings", "tensorrt_rtx_libs"
LIBRARY_FILES = ("libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1")
WORKSPACE_BYTES = 1 << 30


class TensorRtOracle:
    """Parses and builds graphs for SM 86."""

    def available(self) -> bool:
        """Whether the extra is installed."""
        return all(importlib.util.find_spec(name) for name in (BINDINGS, LIBRARIES))

    def build(self, path: Path, batch: tuple[int, int, int] = (1, 1, 1)) -> OracleReport:
        """Parse a graph and build an engine of it."""
        trt = load_trt()
        start = time.monotonic()
        num_layers = parsed_layers(trt, path)
        request = SessionRequest(path, batch=batch, workspace_bytes=WORKSPACE_BYTES)
        try:  # it takes seconds: its progress is not told
            plan = build_engine(trt, request, lambda _: None, adjust=partial(for_sm86, trt))
        except Fault as fault:
            raise ConversionError(fault.what, where=str(path), hint=fault.hint) from fault
        seconds = round(time.monotonic() - start, 2)
        return OracleReport(num_layers, len(plan), seconds, str(trt.__version__), parser_name(trt))


@cache
def load_trt() -> Any:
    """Load TensorRT for RTX; its API is TensorRT's.

    Raises:
        EnvironmentLackingError: it is not installed or cannot be loaded.
    """
    try:
        libraries = importlib.util.find_spec(LIBRARIES)
        if libraries is None or not libraries.submodule_search_locations:
            raise ImportError(f"no module {LIBRARIES}")
        folder = Path(libraries.submodule_search_locations[0])
        # in the global table of symbols, where the bindings find what they link to
        for name in LIBRARY_FILES:
            ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
        return importlib.import_module(BINDINGS)
    except (ImportError, OSError) as error:
        raise EnvironmentLackingError(
            f"TensorRT for RTX cannot be loaded: {error}", hint="pip install 'dfkd-edge[oracle]'"
        ) from error


def parser_name(trt: Any) -> str:
    """Name the parser, its version and what it builds for."""
    return f"TensorRT-RTX {trt.__version__} parser (SM86, no device)"


def for_sm86(trt: Any, config: Any) -> None:
    """Make the builder target SM 86; it then needs no GPU."""
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)


def parsed_layers(trt: Any, path: Path) -> int:
    """Parse a graph and count the layers of the network; a refusal names node and reason."""
    logger = _quiet_logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(path.read_bytes()):
        first = parser.get_error(0)
        reason = str(first.desc()).removeprefix("Assertion failed: ")
        raise ConversionError(
            f"{parser_name(trt)} refuses node '{first.node_name()}' ({first.node_operator()}): "
            f"{reason}",
            where=str(path),
        )
    return int(network.num_layers)


def _quiet_logger(trt: Any) -> Any:
    class QuietLogger(trt.ILogger):  # type: ignore[misc]  # the base is known at run time only
        """Prints nothing: the parser's errors are read from the parser."""

        def log(self, severity: Any, message: str) -> None:
            """Drop a message."""

    return QuietLogger()
