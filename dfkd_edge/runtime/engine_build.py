"""Build a TensorRT engine on the device, for TensorRT 8.2 to 11 by looking at what the API offers.

What differs: memory pools since 8.4, progress monitors since 10, and no precision flags since 11,
where the graph itself carries the precision.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfkd_edge.runtime.faults import Fault, LackingFault
from dfkd_edge.runtime.safe_files import (
    bound_cache,
    close_cache,
    file_sha256,
    make_private,
    reading,
    real_path,
    remove_leftovers,
    used_again,
    why_not_private,
    write_atomically,
)

if TYPE_CHECKING:
    from dfkd_edge.runtime.session import SessionRequest

MIN_WORKSPACE_BYTES, MAX_WORKSPACE_BYTES = 64 << 20, 4 << 30
MAX_CACHE_BYTES = 4 << 30  # Of engines: some tens of them, a quarter of a small board's disk (ours)
MAX_NOTE_BYTES = 1 << 16  # Of what lies beside an engine
SAY_EVERY_S = 5.0  # A build takes minutes on a Jetson


@dataclass(frozen=True)
class EngineKey:
    """All that an engine depends on; another value of any of them needs another engine."""

    onnx_sha256: str
    tensorrt: str  # Version: engines of another one do not load
    sm: int  # Compute capability, 87 for 8.7: kernels are chosen for it
    jetpack: str
    flags: str

    def digest(self) -> str:
        """Name of the engine in the cache."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]


def is_strongly_typed(trt: Any) -> bool:
    """Whether this TensorRT reads the precision from the graph (11 and later)."""
    return not hasattr(trt.BuilderFlag, "FP16")


def flags_text(trt: Any, request: SessionRequest) -> str:
    """Write down what the engine is built with, for the cache key."""
    typing = "strong" if is_strongly_typed(trt) else request.precision
    device = " dla" if request.is_for_dla else ""
    return f"{typing} batch={','.join(map(str, request.batch))}{device}"


def workspace_for(free_bytes: int) -> int:
    """Choose the builder's scratch memory: half of what is free, within bounds."""
    # half, since the CPU of a Jetson takes from the same memory
    return max(MIN_WORKSPACE_BYTES, min(free_bytes // 2, MAX_WORKSPACE_BYTES))


def default_cache() -> Path:
    """Folder of built engines."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "dfkd-edge" / "engines"


def require_own_cache(cache: Path) -> None:
    """Make the folder of engines for this user alone: an engine is code, and runs as it is.

    Raises:
        LackingFault: others may have laid engines there, or it cannot be made.
    """
    try:
        if cache == default_cache():
            close_cache(cache)
        make_private(cache)
        remove_leftovers(cache)
        place = real_path(cache)  # small boards link it to a larger disk
        reason = why_not_private(place) if place.is_dir() else "is no folder"
    except OSError as error:
        what = f"engine cannot be kept: {error.strerror}"
        raise LackingFault(what, str(cache), "name a folder with --cache") from error
    if reason:
        hint = "remove it, the next check makes it anew; or name another with --cache"
        raise LackingFault(f"cache of engines {reason}", str(cache), hint)


def cached_engine(cache: Path, key: EngineKey) -> bytes | None:
    """Read an engine that was built before; None where there is none, or it is not as it was kept.

    The note says what it was built for, so that an engine of another graph is none under its name.
    """
    path = cache / f"{key.digest()}.engine"
    places = (real_path(cache), path, path.with_suffix(".json"))
    try:
        if any(map(why_not_private, places)):
            return None
        with reading(path.with_suffix(".json")) as stream:
            note = json.loads(stream.read(MAX_NOTE_BYTES).decode("utf-8"))
        if note != {**asdict(key), "engine_sha256": file_sha256(path)}:
            return None
        used_again(path)
        return path.read_bytes()
    except (OSError, ValueError, RecursionError):
        return None


def keep_engine(cache: Path, key: EngineKey, plan: bytes) -> None:
    """Keep an engine with a note of what it was built for; the note comes last.

    In our own cache, engines that were used longest ago make room for it.

    Raises:
        LackingFault: the cache cannot be written.
    """
    path = cache / f"{key.digest()}.engine"
    note = {**asdict(key), "engine_sha256": hashlib.sha256(plan).hexdigest()}
    try:
        make_private(cache)
        write_atomically(path, plan, 0o600)
        write_atomically(path.with_suffix(".json"), json.dumps(note, indent=2).encode(), 0o600)
        if cache == default_cache():
            bound_cache(cache, MAX_CACHE_BYTES)
    except OSError as error:
        what = f"engine cannot be kept: {error.strerror}"
        raise LackingFault(what, str(cache), "name a folder with --cache") from error


@contextlib.contextmanager
def _without_rtx_warnings() -> Iterator[None]:
    with warnings.catch_warnings():  # TensorRT-RTX warns that its timing cache does nothing
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


@_without_rtx_warnings()
def load_timings(config: Any, path: Path) -> None:
    """Let a build use what earlier ones measured of kernels: it is several times faster."""
    known = b""
    with contextlib.suppress(OSError):
        known = b"" if why_not_private(path) else path.read_bytes()
    for content in (known, b""):  # what another device measured is refused
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, False):  # False: no other device's
            return


@_without_rtx_warnings()
def save_timings(config: Any, path: Path) -> None:
    """Write what a build has measured; where it cannot be written, the next build is slower."""
    with contextlib.suppress(OSError):
        cache = config.get_timing_cache()
        if cache is not None:
            write_atomically(path, bytes(cache.serialize()), 0o600)


def build_engine(
    trt: Any,
    request: SessionRequest,
    say: Callable[[str], None],
    timings: Path | None = None,
    adjust: Callable[[Any], None] | None = None,
) -> bytes:
    """Build an engine and return it serialized.

    Args:
        trt: the `tensorrt` module, or one with its API.
        request: what to build.
        say: told a line every few seconds.
        timings: file of what builds have measured of kernels.
        adjust: may change the builder's config before the build.

    Raises:
        Fault: the parser refuses the graph.
        LackingFault: the builder fails twice, mostly for want of memory.
    """
    logger = trt.Logger(trt.Logger.ERROR)
    for share in (1, 4):  # a Jetson's free memory may be gone once the build needs it
        workspace_bytes = max(request.workspace_bytes // share, MIN_WORKSPACE_BYTES)
        builder = trt.Builder(logger)
        if request.is_for_dla and not getattr(builder, "num_DLA_cores", 0):
            raise LackingFault("the bundle is for a DLA, this device has none", str(request.model))
        # explicit batch is required up to TensorRT 9, ignored in 10 and gone in 11
        explicit = getattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
        network = builder.create_network(0 if explicit is None else 1 << int(explicit))
        parser = trt.OnnxParser(network, logger)
        if not parser.parse(request.model.read_bytes()):
            reasons = [str(parser.get_error(i).desc()) for i in range(parser.num_errors)]
            reason = (reasons or ["no reason given"])[0][:300]
            raise Fault(f"TensorRT refuses the graph: {reason}", str(request.model))
        config = builder.create_builder_config()
        _configure(trt, config, request, workspace_bytes)
        _add_profile(builder, config, network, request)
        if hasattr(trt, "IProgressMonitor"):
            config.progress_monitor = _monitor(trt, say)
        if timings:
            load_timings(config, timings)
        if adjust:
            adjust(config)
        plan = builder.build_serialized_network(network, config)
        if plan is not None:
            if timings:
                save_timings(config, timings)
            return bytes(plan)  # copied out of TensorRT's IHostMemory
        say(f"build failed with {workspace_bytes >> 20} MiB of workspace")
    hint = "free some memory or add swap, and see its messages above"
    raise LackingFault("TensorRT builds no engine of this graph", str(request.model), hint)


def _configure(trt: Any, config: Any, request: SessionRequest, workspace_bytes: int) -> None:
    if hasattr(config, "set_memory_pool_limit"):  # since TensorRT 8.4
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
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)  # a DLA has no GlobalAveragePool
    if request.precision == "fp32" and hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)  # golden logits are compared to float32's


def _add_profile(builder: Any, config: Any, network: Any, request: SessionRequest) -> None:
    image = network.get_input(0)
    batch, *rest = tuple(image.shape)
    if batch != -1:
        return
    profile = builder.create_optimization_profile()
    profile.set_shape(image.name, *((size, *rest) for size in request.batch))
    config.add_optimization_profile(profile)


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
