"""What the benchmarks share: processes measured from outside, interleaved times, the spread."""

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROUNDS, RUNS = 60, 3


@dataclass(frozen=True)
class Taken:
    """Standard output of a process and what it took."""

    text: str
    seconds: float
    cpu_seconds: float
    peak_gib: float


def measured(
    command: list[str], good_codes: tuple[int, ...] = (0,), folder: Path | None = None
) -> Taken:
    """Run a command in a folder; another exit code than these ends the benchmark."""
    begun = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder) as process:
        assert process.stdout is not None
        text = process.stdout.read()
        # RUSAGE_CHILDREN would give the largest child of all so far, wait4 gives this one
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in good_codes:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    seconds, cpu_seconds = time.monotonic() - begun, usage.ru_utime + usage.ru_stime
    return Taken(text, seconds, cpu_seconds, usage.ru_maxrss / 2**20)  # Linux counts in KiB


def medians_ms(runs: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Median of interleaved runs: a busy machine disturbs all alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            run()  # brings its weights back into the cache
            for _ in range(RUNS):
                begun = time.perf_counter()
                run()
                times[name].append((time.perf_counter() - begun) * 1000)
    return {name: statistics.median(values) for name, values in times.items()}


def labelled(
    data: Path, classes: tuple[str, ...], side_px: int
) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.int64]]]:
    """Name, images [N, side, side, 3] and labels [N] of every domain of labelled pictures."""
    from dfkd_edge.pictures.labelled import find_labelled
    from dfkd_edge.runtime.preprocess import read_picture

    for domain in find_labelled(data, classes).domains:
        images = np.stack([read_picture(file, side_px) for file in domain.files])
        yield domain.name, images, np.array(domain.labels)


def spread(values: list[float]) -> str:
    """Mean and range."""
    return f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
