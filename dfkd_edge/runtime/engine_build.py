"""Build a TensorRT engine on the device, for TensorRT 8.2 to 11 by looking at what the API offers.

TensorRT 8.2 (JetPack 4) lacks memory pools; 8.6 brings progress monitors' forerunners, 10 the
monitors; 11 removes the precision flags: there the graph itself carries the precision.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfkd_edge.runtime.bundle_files import file_sha256, write_atomically
from dfkd_edge.runtime.faults import Fault, LackingFault

MIN_WORKSPACE_BYTES, MAX_WORKSPACE_BYTES = 64 << 20, 4 << 30
SAY_EVERY_S = 5.0


@dataclass(frozen=True)
class EngineRequest:
    """What to build."""

    model: Path
    """ONNX graph."""
    precision: str
    """`fp32`, `fp16` or `int8`; TensorRT 11 reads it from the graph instead."""
    batch: tuple[int, int, int] = (1, 1, 1)
    """Smallest, usual and largest batch, where the graph's is dynamic."""
    workspace_bytes: int = 1 << 30
    """Scratch memory that the builder may take; a second try takes a quarter."""
    use_dla: bool = False
    """Whether layers go to DLA core 0 where it computes them; it has no fp32."""

    @property
    def is_for_dla(self) -> bool:
        """Whether any layer may go to the DLA."""
        return self.use_dla and self.precision != "fp32"


@dataclass(frozen=True)
class EngineKey:
    """All that an engine depends on; another value of any of them needs another engine."""

    onnx_sha256: str
    tensorrt: str
    sm: int
    jetpack: str
    flags: str

    def digest(self) -> str:
        """Name of the engine in the cache."""
        text = json.dumps(self.__dict__, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]


def is_strongly_typed(trt: Any) -> bool:
    """Whether this TensorRT reads the precision from the graph (11 and later)."""
    return not hasattr(trt.BuilderFlag, "FP16")


def flags_text(trt: Any, request: EngineRequest) -> str:
    """Write down what the engine is built with, for the cache key."""
    typing = "strong" if is_strongly_typed(trt) else request.precision
    device = " dla" if request.is_for_dla else ""
    return f"{typing} batch={','.join(map(str, request.batch))}{device}"


def workspace_for(free_bytes: int) -> int:
    """Choose the builder's scratch memory: half of what is free, within bounds."""
    return max(MIN_WORKSPACE_BYTES, min(free_bytes // 2, MAX_WORKSPACE_BYTES))


def default_cache() -> Path:
    """Folder of built engines."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "dfkd-edge" / "engines"


def cached_engine(cache: Path, key: EngineKey) -> bytes | None:
    """Read an engine that was built before; None where there is none or it is damaged."""
    path = cache / f"{key.digest()}.engine"
    try:
        note = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        return path.read_bytes() if note["engine_sha256"] == file_sha256(path) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep_engine(cache: Path, key: EngineKey, plan: bytes) -> None:
    """Keep an engine with a note of what it was built for; the note comes last.

    Raises:
        LackingFault: the cache cannot be written.
    """
    path = cache / f"{key.digest()}.engine"
    note = {**key.__dict__, "engine_sha256": hashlib.sha256(plan).hexdigest()}
    try:
        write_atomically(path, plan)
        write_atomically(path.with_suffix(".json"), json.dumps(note, indent=2).encode())
    except OSError as error:
        raise LackingFault(
            f"engine cannot be kept: {error.strerror}", str(cache), "name a folder with --cache"
        ) from error


def build_and_keep(
    trt: Any,
    request: EngineRequest,
    key: EngineKey,
    cache: Path,
    say: Callable[[str], None],
    adjust: Callable[[Any], None] | None = None,
) -> bytes:
    """Build an engine with what earlier builds have measured of kernels, and keep both.

    Args:
        trt: as in build_engine.
        request: what to build.
        key: of the engine.
        cache: folder of engines and timings.
        say: as in build_engine.
        adjust: as in build_engine.

    Raises:
        Fault: as build_engine.
    """
    timings = TimingCache(cache / f"timings-{key.tensorrt}-sm{key.sm}.cache")

    def prepare(config: Any) -> None:
        timings.attach(config)
        if adjust:
            adjust(config)

    plan = build_engine(trt, request, say, prepare)
    keep_engine(cache, key, plan)
    with contextlib.suppress(OSError):
        timings.save()
    return plan


class TimingCache:
    """What the builder has measured of kernels; makes the next build several times faster."""

    def __init__(self, path: Path) -> None:
        """Name the file; it need not exist."""
        self.path = path
        self._config: Any = None

    def attach(self, config: Any) -> None:
        """Let a build use and extend the cache; one of another device is passed over."""
        known = self.path.read_bytes() if self.path.is_file() else b""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # a no-op in TensorRT-RTX
            for content in (known, b""):
                cache = config.create_timing_cache(content)
                if cache is not None and config.set_timing_cache(cache, False):
                    self._config = config
                    return

    def save(self) -> None:
        """Write what the last build left."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            cache = self._config.get_timing_cache() if self._config else None
            if cache is not None:
                write_atomically(self.path, bytes(cache.serialize()))


def build_engine(
    trt: Any,
    request: EngineRequest,
    say: Callable[[str], None],
    adjust: Callable[[Any], None] | None = None,
) -> bytes:
    """Build an engine and return it serialized.

    Args:
        trt: the `tensorrt` module, or one with its API.
        request: what to build.
        say: told about the progress, a line every few seconds.
        adjust: may change the builder's config before the build.

    Raises:
        Fault: the parser refuses the graph.
        LackingFault: the builder fails twice, mostly for want of memory.
    """
    logger = trt.Logger(trt.Logger.ERROR)
    for share in (1, 4):
        workspace_bytes = max(request.workspace_bytes // share, MIN_WORKSPACE_BYTES)
        builder = trt.Builder(logger)
        if request.is_for_dla and not getattr(builder, "num_DLA_cores", 0):
            raise LackingFault("the bundle is for a DLA, this device has none", str(request.model))
        network = builder.create_network(_network_flags(trt))
        parser = trt.OnnxParser(network, logger)
        _parse(parser, request.model)
        config = builder.create_builder_config()
        _configure(trt, config, request, workspace_bytes)
        _add_profile(builder, config, network, request)
        if hasattr(trt, "IProgressMonitor"):
            config.progress_monitor = _monitor(trt, say)
        if adjust:
            adjust(config)
        plan = _build(builder, network, config)
        if plan is not None:
            return bytes(plan)
        say(f"build failed with {workspace_bytes >> 20} MiB of workspace")
    raise LackingFault(
        "TensorRT builds no engine of this graph",
        str(request.model),
        "free some memory or add swap, and see its messages above",
    )


def _network_flags(trt: Any) -> int:
    """Explicit batch is required up to TensorRT 9, ignored in 10 and gone in 11."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
    return 0 if flag is None else 1 << int(flag)


def _parse(parser: Any, model: Path) -> None:
    if parser.parse(model.read_bytes()):
        return
    reasons = [str(parser.get_error(i).desc()) for i in range(parser.num_errors)]
    raise Fault(
        f"TensorRT refuses the graph: {(reasons or ['no reason given'])[0][:300]}", str(model)
    )


def _configure(trt: Any, config: Any, request: EngineRequest, workspace_bytes: int) -> None:
    if hasattr(config, "set_memory_pool_limit"):
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    else:
        config.max_workspace_size = workspace_bytes
    if not is_strongly_typed(trt):
        if request.precision in ("fp16", "int8"):
            config.set_flag(trt.BuilderFlag.FP16)  # what is not quantized need not be float32
        if request.precision == "int8":
            config.set_flag(trt.BuilderFlag.INT8)
    if request.is_for_dla:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = 0
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    if request.precision == "fp32" and hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)  # golden logits are compared to float32's


def _add_profile(builder: Any, config: Any, network: Any, request: EngineRequest) -> None:
    image = network.get_input(0)
    batch, *rest = tuple(image.shape)
    if batch != -1:
        return
    profile = builder.create_optimization_profile()
    profile.set_shape(image.name, *((size, *rest) for size in request.batch))
    config.add_optimization_profile(profile)


def _build(builder: Any, network: Any, config: Any) -> Any:
    if hasattr(builder, "build_serialized_network"):
        return builder.build_serialized_network(network, config)
    engine = builder.build_engine(network, config)
    return engine.serialize() if engine else None


def _monitor(trt: Any, say: Callable[[str], None]) -> Any:
    """Tell how far the build is; minutes of silence look like a crash."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the base is known at run time only
        def __init__(self) -> None:
            super().__init__()
            self.steps: dict[str, int] = {}
            self.last = time.monotonic()

        def phase_start(self, name: str, parent: str | None, num_steps: int) -> None:
            self.steps[name] = num_steps

        def phase_finish(self, name: str) -> None:
            self.steps.pop(name, None)

        def step_complete(self, name: str, step: int) -> bool:
            now = time.monotonic()
            if now - self.last >= SAY_EVERY_S:
                self.last = now
                say(f"building the engine: {name}, {step + 1} of {self.steps.get(name, 0)}")
            return True

    return Monitor()
