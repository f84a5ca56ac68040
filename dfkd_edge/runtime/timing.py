"""How long one inference takes: warm up first, then percentiles over a stated time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dfkd_edge.runtime.faults import UsageFault

MIN_ITERATIONS, MAX_ITERATIONS = 20, 1_000_000  # The latter bounds the list of times
MAX_S = 3600.0
MAX_VARIATION = 0.1  # Above it, the clocks or the load were unsteady (ours)


@dataclass(frozen=True)
class TimingRequest:
    """How to measure; the defaults are those of trtexec."""

    warmup_ms: float = 200.0  # Clocks ramp up and caches fill before anything counts
    duration_s: float = 3.0  # How long to measure; at least 20 inferences are timed
    percentiles: tuple[float, ...] = (50.0, 90.0, 99.0)  # Which percentiles to state

    def __post_init__(self) -> None:
        """Refuse a time that never ends, or is no number."""
        for flag, seconds in (("--warmup", self.warmup_ms / 1e3), ("--duration", self.duration_s)):
            if not 0 <= seconds <= MAX_S:
                raise UsageFault("no time from nothing to an hour", flag, "such as 3")


@dataclass(frozen=True)
class Latency:
    """What was measured, end to end: from images in memory to results in memory."""

    batch: int
    num_iterations: int
    percentile_ms: dict[str, float]  # `p50`, `p90`, `p99`: milliseconds
    mean_ms: float
    min_ms: float
    max_ms: float
    variation: float
    """Standard deviation over mean; above MAX_VARIATION the clocks or the load were unsteady."""
    throughput_per_s: float  # Images a second, one after the other
    warmup_ms: float
    duration_s: float

    @property
    def unsteadiness(self) -> list[str]:
        """Why it may not be repeatable: no line where the inferences took much the same time."""
        if self.variation <= MAX_VARIATION:
            return []
        return [f"unsteady: deviation is {self.variation:.2f} of the mean"]


@dataclass(frozen=True)
class DeviceLatency(Latency):
    """A latency with the conditions it was measured under, for result.json."""

    state: dict[str, object]  # As device.State
    doubts: list[str]
    """Why the time may not be repeatable, or says nothing of the precision: a sentence each."""
    peak_memory_mib: float  # Of the whole process


def measure(
    infer: Callable[[], object],
    batch: int,
    request: TimingRequest,
    tell: Callable[[float], None] = lambda _: None,
) -> Latency:
    """Time a function that runs one batch.

    Args:
        infer: one inference, finished when it returns.
        batch: images it takes.
        request: warm-up, duration and percentiles.
        tell: called between inferences with the seconds since the start; its time is not counted.
    """
    begun = time.perf_counter()
    infer()  # the first one loads kernels: some seconds on a Xavier
    while (time.perf_counter() - begun) * 1e3 < request.warmup_ms:
        infer()
        tell(time.perf_counter() - begun)
    times_ms: list[float] = []
    start = before = time.perf_counter()
    end = start + request.duration_s
    while (before < end or len(times_ms) < MIN_ITERATIONS) and len(times_ms) < MAX_ITERATIONS:
        infer()
        after = time.perf_counter()
        times_ms.append((after - before) * 1e3)
        tell(after - begun)
        before = time.perf_counter()  # what it took counts for no inference
    taken_ms = np.asarray(times_ms)
    return Latency(
        batch=batch,
        num_iterations=len(times_ms),
        percentile_ms={
            f"p{percentile:g}": float(np.percentile(taken_ms, percentile))
            for percentile in request.percentiles
        },
        mean_ms=float(taken_ms.mean()),
        min_ms=float(taken_ms.min()),
        max_ms=float(taken_ms.max()),
        variation=float(taken_ms.std() / taken_ms.mean()),
        throughput_per_s=batch * 1e3 / float(taken_ms.mean()),
        warmup_ms=request.warmup_ms,
        duration_s=before - start,
    )


def parse_percentiles(text: str) -> tuple[float, ...]:
    """Read `50,90,99`.

    Raises:
        ValueError: a part is no number between 0 and 100.
    """
    percentiles = tuple(float(part) for part in text.split(","))
    if not all(0 <= p <= 100 for p in percentiles):
        raise ValueError(text)
    return percentiles
