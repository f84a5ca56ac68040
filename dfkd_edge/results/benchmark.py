"""Latency, throughput and memory of a bundle's models on one machine."""

from dataclasses import dataclass, field

from dfkd_edge.results.codec import Documented
from dfkd_edge.runtime.timing import Latency


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredLatency(Documented, Latency):
    """What check.pyz timed, as result.json holds it."""

    peak_memory_mib: float  # Of the whole process: Python, the runtime, the model and its buffers
    state: dict[str, object] = field(default_factory=dict)
    """Clocks, power mode and temperature where the machine tells them."""
    caveats: tuple[str, ...] = ()  # Why it may not be repeatable, a sentence each


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelBenchmark:
    """What one model of a bundle costs here."""

    precision: str
    size_bytes: int  # Of the ONNX file
    backend: str  # Runtime and its version
    threads: int  # CPU threads of the runtime
    latency: MeasuredLatency
    peak_memory_mib: float  # As of `latency`
    model_memory_mib: float  # What the process grew by from loading the model on
    is_golden: bool  # Whether the golden logits were reproduced before anything was timed
    cpu: str  # Name of the processor
    in_float: bool  # Whether INT8 was computed in float, since this CPU's 8-bit sums saturate


@dataclass(frozen=True, kw_only=True, slots=True)
class Benchmark:
    """What `benchmark --json` prints."""

    bundle: str
    target: str
    models: tuple[ModelBenchmark, ...]
