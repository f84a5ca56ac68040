"""TensorRT engines, built where they will run: on the device or on a host with its GPU.

The build itself, from TensorRT 8.2 to 11, is the runtime's (`dfkd_edge.runtime.engine_build`), so
that the device check and this exporter build alike. Added here: the timing cache, and a progress
bar.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfkd_edge.artifacts import ModelFile
from dfkd_edge.config import ExportConfig
from dfkd_edge.errors import ConversionError, EnvironmentLackingError
from dfkd_edge.interfaces import Progress, Reporter
from dfkd_edge.run_dir import atomic_write
from dfkd_edge.runtime.cuda_memory import Cuda
from dfkd_edge.runtime.device import jetpack_of, read_l4t
from dfkd_edge.runtime.engine_build import (
    EngineKey,
    EngineRequest,
    build_engine,
    cached_engine,
    default_cache,
    flags_text,
    keep_engine,
    workspace_for,
)
from dfkd_edge.runtime.faults import Fault, LackingFault
from dfkd_edge.target_profile import TargetProfile

from .onnx_graph import min_usual_max

if TYPE_CHECKING:
    import tensorrt

NUM_MARKS = 100
"""Of the progress bar; TensorRT says the number of steps phase by phase only."""


@dataclass(frozen=True, slots=True)
class BuildPlace:
    """Where an engine is built, which is where it will run."""

    trt: Any
    """The `tensorrt` module, or one with its API."""
    sm: int
    jetpack: str
    free_bytes: int
    cache: Path
    adjust: Callable[[tensorrt.IBuilderConfig], None] | None = None
    """May change the builder's config."""


def this_device() -> BuildPlace:
    """Look at this machine.

    Raises:
        EnvironmentLackingError: TensorRT or a CUDA device is not there.
    """
    try:
        import tensorrt as trt

        if not hasattr(trt, "Builder"):
            raise ImportError("type stubs alone are no TensorRT")
        cuda = Cuda()
    except ImportError as error:
        raise EnvironmentLackingError(
            "TensorRT is not installed here",
            hint="build on the device: python3 check.pyz in the bundle does",
        ) from error
    except LackingFault as fault:
        raise EnvironmentLackingError(fault.what, where=fault.where, hint=fault.hint) from fault
    l4t = read_l4t(Path("/"))
    return BuildPlace(
        trt, cuda.compute_capability(), jetpack_of(l4t) or l4t, cuda.free_bytes(), default_cache()
    )


class TensorRtEngineExporter:
    """ONNX graph to engine, taken from the cache when nothing has changed."""

    name = "engine"

    def __init__(self, place: BuildPlace | None = None, reporter: Reporter | None = None) -> None:
        """Build at a place other than this device, or with a progress bar."""
        self._place, self._reporter = place, reporter

    def export(
        self, model: ModelFile, target: TargetProfile, config: ExportConfig, folder: Path
    ) -> ModelFile:
        """Write the engine into a folder.

        Raises:
            ConversionError: the parser refuses the graph.
            EnvironmentLackingError: no TensorRT, no CUDA device or too little memory.
        """
        if target.backend != "tensorrt":
            raise ConversionError(f"{target.name} runs no TensorRT engines", where="--target")
        place = self._place or this_device()
        request = EngineRequest(
            model.path,
            model.precision,
            min_usual_max(config.batch),
            workspace_for(place.free_bytes),
        )
        key = EngineKey(
            model.sha256,
            str(place.trt.__version__),
            place.sm,
            place.jetpack,
            flags_text(place.trt, request),
        )
        try:
            plan = cached_engine(place.cache, key)
            from_cache = plan is not None
            if plan is None:
                plan = self._build(place, request, key)
                keep_engine(place.cache, key, plan)
        except LackingFault as fault:
            raise EnvironmentLackingError(fault.what, where=fault.where, hint=fault.hint) from fault
        except Fault as fault:
            raise ConversionError(fault.what, where=fault.where, hint=fault.hint) from fault
        path = folder / f"{model.path.stem}.engine"
        atomic_write(path, plan)
        notes = {"key": key.digest(), "tensorrt": key.tensorrt, "sm": key.sm, "flags": key.flags}
        return ModelFile(path, "engine", model.precision, {**notes, "from_cache": from_cache})

    def _build(self, place: BuildPlace, request: EngineRequest, key: EngineKey) -> bytes:
        timings = TimingCache(place.cache / f"timings-{key.tensorrt}-sm{key.sm}.cache")
        with contextlib.ExitStack() as stack:
            progress = None
            if self._reporter:
                bar = self._reporter.stage("building the engine", NUM_MARKS)
                progress = stack.enter_context(bar)

            def adjust(config: tensorrt.IBuilderConfig) -> None:
                timings.attach(config)
                if progress and hasattr(place.trt, "IProgressMonitor"):
                    config.progress_monitor = progress_monitor(place.trt, progress)
                if place.adjust:
                    place.adjust(config)

            notes = self._reporter.note if self._reporter else _say_nothing
            plan = build_engine(place.trt, request, notes, adjust)
        timings.save()
        return plan


class TimingCache:
    """What the builder has measured of kernels; makes the next build several times faster."""

    def __init__(self, path: Path) -> None:
        """Name the file; it need not exist."""
        self.path = path
        self._config: tensorrt.IBuilderConfig | None = None

    def attach(self, config: tensorrt.IBuilderConfig) -> None:
        """Let a build use and extend the cache; one of another device is passed over."""
        known = self.path.read_bytes() if self.path.is_file() else b""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # a no-op in TensorRT-RTX
            for content in (known, b""):
                cache = config.create_timing_cache(content)
                if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
                    self._config = config
                    return

    def save(self) -> None:
        """Write what the last build left."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            cache = self._config.get_timing_cache() if self._config else None
            if cache is not None:
                atomic_write(self.path, bytes(cache.serialize()))
        self._config = None


def progress_monitor(trt: Any, progress: Progress) -> tensorrt.IProgressMonitor:
    """Make TensorRT's progress move a bar; a phase may start others, the outermost counts."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the base is known at run time only
        """Spreads the steps of outermost phases over the bar."""

        def __init__(self) -> None:
            super().__init__()
            self.steps: dict[str, int] = {}
            self.marks = 0.0

        def phase_start(self, name: str, parent: str | None, num_steps: int) -> None:
            """Remember an outermost phase."""
            if not parent:
                self.steps[name] = max(num_steps, 1)

        def phase_finish(self, name: str) -> None:
            """Forget it."""
            self.steps.pop(name, None)

        def step_complete(self, name: str, step: int) -> bool:
            """Advance; True lets the build go on."""
            if name in self.steps:
                before = int(self.marks)
                self.marks = min(self.marks + NUM_MARKS / self.steps[name], NUM_MARKS)
                progress.advance(int(self.marks) - before, name)
            return True

    monitor: tensorrt.IProgressMonitor = Monitor()
    return monitor


def _say_nothing(text: str) -> None:
    """Nobody listens."""
