"""A TensorRT engine, taken from the cache or built here; onnxruntime stands in where none can be.

Tensors are addressed by name since TensorRT 8.5 (JetPack 5.1), by binding number before.
Shape suffixes: N images, H rows, W columns, C = 3 channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dfkd_edge.runtime.cuda_memory import DEVICE_TO_HOST, HOST_TO_DEVICE, Cuda
from dfkd_edge.runtime.device import TO_INSTALL, jetpack_of, read_l4t
from dfkd_edge.runtime.engine_build import (
    EngineKey,
    build_engine,
    cached_engine,
    default_cache,
    flags_text,
    keep_engine,
    require_own_cache,
    workspace_for,
)
from dfkd_edge.runtime.faults import Fault, LackingFault, UsageFault
from dfkd_edge.runtime.graph_guard import read_outline
from dfkd_edge.runtime.safe_files import file_sha256
from dfkd_edge.runtime.session import OnnxSession, Outputs, Session, SessionRequest, in_batches

if TYPE_CHECKING:
    from numpy.typing import NDArray

BACKENDS = ("auto", "tensorrt", "onnxruntime")
NOT_INSTALLED = "TensorRT's Python module is not installed"
DTYPES = {"FLOAT": "float32", "HALF": "float16", "UINT8": "uint8", "INT8": "int8"}
"""Not trt.nptype: before TensorRT 10 it fails with numpy 1.24 and newer."""


def why_no_tensorrt() -> LackingFault | None:
    """Say why TensorRT cannot be used here and what to do; None where it can."""
    try:
        import tensorrt
    except ModuleNotFoundError as error:
        what = NOT_INSTALLED if error.name == "tensorrt" else str(error)
        return LackingFault(what, hint=TO_INSTALL)
    except (ImportError, OSError) as error:  # a shared library that it needs is not there
        what = str(error).partition("\n")[0] or "its module cannot be imported"
        return LackingFault(what, hint=TO_INSTALL)
    if not hasattr(tensorrt, "Builder"):  # a folder of type stubs imports as an empty package
        return LackingFault(NOT_INSTALLED, hint=TO_INSTALL)
    try:
        Cuda()
    except LackingFault as fault:
        return fault
    return None


def open_session(request: SessionRequest, say: Callable[[str], None]) -> Session:
    """Load a model; with TensorRT this may build an engine, which takes minutes the first time.

    Raises:
        LackingFault: neither backend is usable here.
        Fault: the model cannot be loaded.
    """
    if request.backend not in BACKENDS:
        raise UsageFault(f"no backend '{request.backend}'", "--backend", ", ".join(BACKENDS))
    if request.backend != "onnxruntime":
        lacking = why_no_tensorrt()
        if lacking is None:
            return open_engine(request, say)
        what, hint = lacking.what, lacking.hint
        if request.backend == "tensorrt":
            raise LackingFault("TensorRT is not usable here", what, hint)
        if Path("/etc/nv_tegra_release").exists():  # elsewhere nobody waits for TensorRT
            say(f"TensorRT is not usable here ({what}), onnxruntime is taken: {hint}")
    return OnnxSession(request)


def open_engine(request: SessionRequest, say: Callable[[str], None]) -> EngineSession:
    """Take the engine from the cache, or build and keep it.

    Raises:
        Fault: the graph is refused, or the engine cannot be loaded.
        LackingFault: there is too little memory, or no CUDA device.
    """
    import tensorrt as trt

    read_outline(request.model)  # what may not end, or reads other files, is refused
    cuda = Cuda()
    request = replace(request, workspace_bytes=workspace_for(cuda.free_bytes()))
    l4t = read_l4t(Path("/"))
    key = EngineKey(
        onnx_sha256=file_sha256(request.model),
        tensorrt=str(trt.__version__),
        sm=cuda.compute_capability(),
        jetpack=jetpack_of(l4t) or l4t,
        flags=flags_text(trt, request),
    )
    cache = request.cache or default_cache()
    require_own_cache(cache)
    plan = cached_engine(cache, key)
    engine = _deserialize(trt, plan) if plan else None
    if plan is None or engine is None:
        say(f"building an engine for TensorRT {key.tensorrt}, SM {key.sm}: some minutes, once")
        timings = cache / f"timings-{key.tensorrt}-sm{key.sm}.cache"
        plan = build_engine(trt, request, say, timings)
        keep_engine(cache, key, plan)
        engine = _deserialize(trt, plan)
    if engine is None:
        raise Fault("TensorRT cannot load the engine it has built", str(request.model))
    return EngineSession(cuda, engine, key, len(plan))


def _deserialize(trt: Any, plan: bytes) -> Any:
    return trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(plan)


class _Tensor:
    """One input or output: its host array, its device memory."""

    def __init__(self, cuda: Cuda, name: str, shape: tuple[int, ...], dtype: str) -> None:
        self.name = name
        self.host = np.empty(shape, dtype)
        self.address = cuda.allocate(max(self.host.nbytes, 1))


class EngineSession:
    """An engine under TensorRT, on GPU 0."""

    backend = "tensorrt"

    def __init__(self, cuda: Cuda, engine: Any, key: EngineKey, size_bytes: int) -> None:
        """Allocate memory for the largest batch.

        Raises:
            Fault: the engine has other inputs or outputs than ours.
        """
        self.version, self.size_bytes = key.tensorrt, size_bytes
        self.settings: dict[str, object] = {
            "sm": key.sm,
            "jetpack": key.jetpack,
            "engine": key.digest(),
            "flags": key.flags,
            "timed": "host to device, compute, device to host",
        }
        self._cuda, self._engine = cuda, engine
        self._context = engine.create_execution_context()
        self._named = hasattr(engine, "num_io_tensors")  # since TensorRT 8.5
        names = self._names()
        if "image" not in names or not set(Outputs._fields) <= set(names):
            raise Fault("engine has other inputs or outputs than ours", ", ".join(names))
        self._fixed_batch = max(self._shape("image")[0], 0)  # -1 where it is dynamic
        self._max_batch = self._fixed_batch or self._profile_max()
        self._stream = cuda.stream()
        self._tensors = {}
        for name in names:
            shape = (self._max_batch, *self._shape(name)[1:])
            self._tensors[name] = _Tensor(cuda, name, shape, DTYPES[self._dtype(name).name])

    def _names(self) -> list[str]:
        engine = self._engine
        if self._named:
            return [str(engine.get_tensor_name(i)) for i in range(engine.num_io_tensors)]
        return [str(engine.get_binding_name(i)) for i in range(engine.num_bindings)]

    def _shape(self, name: str) -> tuple[int, ...]:
        engine = self._engine
        shape = engine.get_tensor_shape(name) if self._named else engine.get_binding_shape(name)
        return tuple(int(side) for side in shape)

    def _dtype(self, name: str) -> Any:
        engine = self._engine
        return engine.get_tensor_dtype(name) if self._named else engine.get_binding_dtype(name)

    def _profile_max(self) -> int:
        engine = self._engine
        if self._named:
            shapes = engine.get_tensor_profile_shape("image", 0)
        else:
            shapes = engine.get_profile_shape(0, "image")
        return int(next(iter(shapes[2])))  # of smallest, usual, largest

    def run(self, images_NHWC: NDArray[np.uint8]) -> Outputs:
        """Classify any number of images."""
        return in_batches(images_NHWC, self._fixed_batch, self._max_batch, self._run_batch)

    def _run_batch(self, images_NHWC: NDArray[np.uint8]) -> Outputs:
        cuda, stream, num = self._cuda, self._stream, len(images_NHWC)
        image = self._tensors["image"]
        image.host[:num] = images_NHWC
        source = image.host[:num]
        cuda.copy(image.address, source.ctypes.data, source.nbytes, HOST_TO_DEVICE, stream)
        self._execute(images_NHWC.shape)
        outputs = [self._tensors[name] for name in Outputs._fields]
        for tensor in outputs:
            target = tensor.host[:num]
            cuda.copy(target.ctypes.data, tensor.address, target.nbytes, DEVICE_TO_HOST, stream)
        cuda.wait(stream)
        # a copy, since the next batch overwrites the host arrays
        return Outputs(*(tensor.host[:num].astype(np.float32) for tensor in outputs))

    def _execute(self, shape: tuple[int, ...]) -> None:
        context = self._context
        if self._named:
            context.set_input_shape("image", shape)
            for tensor in self._tensors.values():
                context.set_tensor_address(tensor.name, tensor.address)
            started = context.execute_async_v3(self._stream)  # since TensorRT 8.5
        else:
            context.set_binding_shape(self._engine.get_binding_index("image"), shape)
            bindings = [tensor.address for tensor in self._tensors.values()]  # in binding order
            started = context.execute_async_v2(bindings, self._stream)  # gone in TensorRT 10
        if not started:
            raise Fault("TensorRT cannot run the engine", "execute_async")

    def close(self) -> None:
        """Free the engine and its memory."""
        for tensor in self._tensors.values():
            self._cuda.release(tensor.address)
        self._cuda.release_stream(self._stream)
        self._tensors = {}
        del self._context, self._engine
