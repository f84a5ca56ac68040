"""CPU seconds of a step of the student, with the default settings, on one thread and on two.

    python tests/benchmarks/student_steps.py
    python tests/benchmarks/student_steps.py --against CHECKOUT

The second form runs `distill` of this checkout and of another one by turns, on one thread, and
compares what more steps take: all else is equal, views of a step too, of which earlier checkouts
had other defaults, and what a busy machine does falls on both.
A busy machine stretches the wall clock, not the CPU time that a process is given; the median leaves
out the steps that wrote a checkpoint.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from measuring import measured

NUM_CLASSES, NUM_IMAGES, SIDE_PX = 7, 640, 96
FEW_AND_MANY, BATCH_SIZE = (4, 24), 64  # Steps of `distill` that are compared, and their views


class CpuLaps:
    """A reporter that takes the CPU time at the end of each step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    @contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Iterator["CpuLaps"]:
        """Keep the times of the last stage."""
        self.times = [time.process_time()]
        yield self

    def advance(self, count: int = 1, note: str = "") -> None:
        """End a step."""
        self.times.append(time.process_time())

    def note(self, text: str) -> None:
        """Say nothing."""


def measure(num_threads: int, num_steps: int, settings: dict[str, int]) -> float:
    """Train in this process and return the median CPU seconds of a step."""
    from dfkd_edge.machine.process import prepare_process

    prepare_process("cpu", num_threads)
    import numpy as np

    from dfkd_edge.artifacts import SurrogateSet, SurrogateSummary
    from dfkd_edge.class_names import parse_class_names
    from dfkd_edge.config.settings import DistillationConfig, TeacherConfig
    from dfkd_edge.distillation import distill
    from dfkd_edge.networks.teacher import load_teacher
    from dfkd_edge.runs.context import StageContext
    from dfkd_edge.runs.row_stores import ArrayRows
    from dfkd_edge.runs.run_dir import open_run

    names = parse_class_names("\n".join(f"thing {n}" for n in range(NUM_CLASSES)), "benchmark")
    teacher, rng, number = (
        load_teacher(TeacherConfig(), names),
        np.random.default_rng(0),
        NUM_IMAGES,
    )
    coarse = rng.integers(0, 256, (number, 12, 12, 3), dtype=np.uint8)
    label = np.arange(number) % NUM_CLASSES
    summary = SurrogateSummary(
        content="benchmark", num_candidates=number, num_images=number, num_heldout=number // 8,
        num_unrecognised=0, acceptance=1.0, mean_distance_within_class=0.5, classes=(),
    )  # fmt: skip
    surrogates = SurrogateSet(
        ArrayRows(coarse.repeat(SIDE_PX // 12, 1).repeat(SIDE_PX // 12, 2)), label, label * 0,
        label * 0 - 1, ArrayRows(np.zeros((number, teacher.embed_dim), np.float32)),
        np.arange(number) % 8 == 0, summary,
    )  # fmt: skip
    laps, config = CpuLaps(), DistillationConfig(num_steps=num_steps, **settings)  # type: ignore[arg-type]
    with (
        tempfile.TemporaryDirectory() as folder,
        open_run(Path(folder) / "run", "key", resume=True, exist_ok=False) as run_dir,
    ):
        distill(teacher, surrogates, config, StageContext(run_dir, laps, 0, "cpu"))
    steps = [after - before for before, after in zip(laps.times[4:], laps.times[5:], strict=False)]
    return statistics.median(steps)


def step_of(checkout: Path, folder: Path) -> float:
    """CPU seconds of a step of `distill` in a checkout: what more steps take on the same images."""
    (folder / "classes.txt").write_text("dog\nhouse\nperson\nguitar\nhorse\n", encoding="utf-8")
    words = ["distill", "--classes", str(folder / "classes.txt"), "--output", str(folder / "run")]
    words += [
        "--exist-ok",
        "--workers",
        "1",
        "--quiet",
        "--json",
        "--batch-size",
        str(BATCH_SIZE),
        "--set",
        "synthesis.num_images=96",
    ]

    def taken(num_steps: int) -> float:
        command = [sys.executable, "-m", "dfkd_edge", *words, "--steps", str(num_steps)]
        return measured(command, folder=checkout).cpu_seconds

    if not (folder / "run").exists():
        taken(1)  # makes the images
    few, many = FEW_AND_MANY
    before, after = taken(few), taken(many)
    return (after - before) / (many - few)


def compare(other: Path, repeats: int) -> None:
    """Print the steps of both checkouts, interleaved, and the ratio of their medians."""
    ours, found = Path(__file__).parents[2], dict[Path, list[float]]()
    with tempfile.TemporaryDirectory() as name:
        for repeat in range(repeats):
            for number, checkout in enumerate((other, ours)):
                folder = Path(name) / str(number)
                folder.mkdir(exist_ok=True)
                found.setdefault(checkout, []).append(step_of(checkout, folder))
            print(
                f"{repeat + 1}: {found[other][-1]:.3f} and {found[ours][-1]:.3f} CPU s", flush=True
            )
    before, after = (statistics.median(found[checkout]) for checkout in (other, ours))
    print(
        f"steps a CPU second: {1 / before:.2f} there, {1 / after:.2f} here, {before / after:.3f} x"
    )


def main() -> None:
    """Measure each number of threads in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--settings", type=json.loads, default={}, help="JSON of [distillation]")
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--against", type=Path, help="another checkout")
    parser.add_argument("--repeats", type=int, default=3, help="how often both checkouts run")
    options = parser.parse_args()
    if options.against:
        compare(options.against.resolve(), options.repeats)
        return
    if options.threads:
        print(measure(options.threads, options.steps, options.settings))
        return
    for threads in (1, 2):
        command = [sys.executable, __file__, "--steps", str(options.steps)]
        command += ["--settings", json.dumps(options.settings), "--threads", str(threads)]
        print(f"{threads} thread(s): {float(measured(command).text):.3f} CPU s a step", flush=True)


if __name__ == "__main__":
    main()
