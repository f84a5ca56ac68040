"""A sample of all points at which a command can be cut off; tests/benchmarks has them all."""

import dataclasses
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dfkd_edge.bundles.bundle import BundleContents, write_bundle
from dfkd_edge.files import atomic_write, scratch_folder
from dfkd_edge.runs.run_dir import open_run, point_latest
from tests.fixtures.crash_line import CrashLine, Verb
from tests.fixtures.crash_walk import Walk
from tests.fixtures.crash_warmth import warm
from tests.fixtures.file_faults import Mode, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())
FAULTS = (Mode.ENOSPC, Mode.EIO, Mode.SHORT, Mode.KILL, Mode.TORN, Mode.FULL)


def sample(
    line: CrashLine, num: int, modes: tuple[Mode, ...] = FAULTS
) -> list[tuple[str, int, Mode]]:
    """Draw points from all operations of all verbs, each mode as often as it suits them."""
    points = [
        (verb, at, mode)
        for verb, operations in line.operations.items()
        for at, operation in enumerate(operations, start=1)
        for mode in modes
        if operation.suits(mode)
    ]
    return random.Random(0).sample(points, num)


def make_run() -> None:
    """Do with a run directory what a stage does."""
    run = Path("runs/pets")
    with open_run(run, "key", resume=True, exist_ok=False) as made, scratch_folder() as scratch:
        atomic_write(scratch / "graph", b"graph")
        made.log("begun")
        if not made.is_complete("prompts", "of prompts"):
            made.append_metrics("prompts", 1, {"loss": 1.0})
            file = made.stage_dir("prompts") / "prompts.json"
            atomic_write(file, "{}\n")
            made.complete("prompts", "of prompts", [file])
    point_latest(run.parent, run)


@pytest.fixture(scope="module")
def small_line(
    tmp_path_factory: pytest.TempPathFactory, tiny_contents: BundleContents
) -> Iterator[CrashLine]:
    """A run directory that is made, and a bundle that is replaced."""
    failed = dataclasses.replace(tiny_contents, status="failed")

    def lay(folder: Path) -> None:
        write_bundle(folder / "bundle", tiny_contents)
        for name in ("bundle/.git/HEAD", "bundle/devices/board.json", "runs/mine.txt"):
            atomic_write(folder / name, "{}")

    verbs = {
        "make": Verb(lay=lay, work=make_run),
        "replace": Verb(work=lambda: write_bundle(Path("bundle"), failed)),
    }
    with warm():
        yield CrashLine(tmp_path_factory.mktemp("crash") / "line", verbs)


def test_a_run_and_a_bundle_end_whole_wherever_their_writing_was_cut_off(
    small_line: CrashLine,
) -> None:
    trials = [small_line.try_point(*point) for point in sample(small_line, 24)]
    assert not [(trial, trial.faults) for trial in trials if trial.faults]
    assert {trial.status for trial in trials} >= {0, 4, -9}  # what was to happen did


def test_a_temporary_folder_is_removed_though_a_first_try_of_it_fails(
    small_line: CrashLine,
) -> None:
    removals = [
        at
        for at, operation in enumerate(small_line.operations["make"], 1)
        if operation.name in ("unlink", "rmdir") and operation.path.startswith("/tmp/.dfkd-edge.")
    ]
    assert len(removals) > 1  # of what is in it, and of itself
    for at in removals:
        small_line.lay("make")
        assert small_line.attempt("make", at, Mode.EIO).status in (0, 4)
        assert not list((small_line.folder / "tmp").iterdir())


def test_a_walk_that_forks_at_each_operation_finds_what_runs_of_their_own_find(
    small_line: CrashLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [at for at, o in enumerate(small_line.operations["make"], 1) if o.name == "rename"]
    modes = [mode for mode in FAULTS if mode not in (Mode.SHORT, Mode.TORN)]
    assert not [
        (trial, trial.faults)
        for trial in Walk(small_line, "make").trials(dict.fromkeys(points[:2], modes))
        if trial.faults
    ]
    monkeypatch.setattr("dfkd_edge.runtime.safe_files.is_leftover", lambda _: False)
    small_line.forget()
    walked = list(Walk(small_line, "make").trials({points[1]: modes}))
    small_line.forget()
    alone = [small_line.try_point("make", points[1], mode) for mode in modes]
    assert [bool(trial.faults) for trial in walked] == [mode is Mode.KILL for mode in modes]
    shown = [
        [(t.at, t.mode, t.status, t.operation.name, len(t.faults)) for t in trials]
        for trials in (walked, alone)
    ]
    assert shown[0] == shown[1]


def test_each_fault_is_felt_and_a_half_written_bundle_would_be_noticed(
    small_line: CrashLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    renames = [at for at, o in enumerate(small_line.operations["make"], 1) if o.name == "rename"]
    monkeypatch.setattr("dfkd_edge.runtime.safe_files.is_leftover", lambda _: False)
    trial = small_line.try_point("make", renames[1], Mode.KILL)
    assert [fault for fault in trial.faults if "left: runs/pets/." in fault]


@pytest.mark.slow
def test_commands_end_with_the_same_artifacts_whatever_they_met(tmp_path: Path) -> None:
    """In a process of its own: one that has taken a gradient cannot be forked."""
    results = tmp_path / "points.jsonl"
    script = Path(__file__).parent / "benchmarks" / "crash_points.py"
    verbs = ["--verbs", "distill", "export", "check", "report", "--sample", "6"]
    modes = ["--modes", *(mode.name for mode in FAULTS)]
    meetings = ["--meet", "pair", "term", "future", "past", "disk", "read-only", "--every", "40"]
    command = [sys.executable, str(script), "--results", str(results), *verbs, *modes, *meetings]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    met = {json.loads(line)["mode"] for line in results.read_text().splitlines()}
    assert met > {"pair", "term", "future", "past", "disk", "read-only"}
