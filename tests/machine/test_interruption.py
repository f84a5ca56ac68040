import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dfkd_edge.console import ConsoleReporter, make_console
from dfkd_edge.machine.interruption import interrupted_line
from dfkd_edge.runs.run_dir import Manifest, RunDir, kept_in, noting_what_is_kept


def interrupted(run: Path) -> KeyboardInterrupt:
    """Interrupt a stage within another one."""
    reporter = ConsoleReporter(make_console(quiet=True))
    try:
        with (
            noting_what_is_kept(run),
            reporter.stage("going", 3),
            reporter.stage("distilling the student", 200, 100) as progress,
        ):
            progress.advance(20)
            raise KeyboardInterrupt
    except KeyboardInterrupt as stop:
        return stop


def test_an_interrupted_user_reads_the_step_what_is_kept_and_how_to_go_on(
    tiny_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    stop = interrupted(run)
    began = "stopped while distilling the student, 120 of 200; "
    kept = "kept: the prompts, the surrogate images, the student; "
    assert interrupted_line(stop, ["distill"]) == f"{began}{kept}the same command goes on"
    assert interrupted_line(stop, ["distill", "--no-resume"]).endswith(
        "; the same command without --no-resume goes on"
    )
    assert interrupted_line(stop, ["check"]) == (
        f"{began}nothing half was left behind, run the command again"
    )


def test_what_was_not_noted_is_left_out() -> None:
    line = interrupted_line(KeyboardInterrupt(), ["run", "run.toml"])
    assert line == "stopped; what is done is kept; the same command goes on"


@pytest.mark.parametrize("there", [True, False])
def test_parts_of_a_stage_are_kept_too(tmp_path: Path, there: bool) -> None:
    if there:
        for name in ("surrogates/shard-00000", "surrogates/shard-00001", "student/checkpoint"):
            file = tmp_path / "run" / f"{name}.safetensors"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        RunDir(tmp_path / "run", Manifest("k", {"prompts": {"key": "k", "files": {}}})).save()
    expected = "the prompts, 2 shards of surrogate images, the student as it was seconds ago"
    assert ", ".join(kept_in(tmp_path / "run")) == (expected if there else "")


TWICE = """
import os, signal
from dfkd_edge.machine.interruption import Terminated, interrupt_on_sigterm

interrupt_on_sigterm()
try:
    os.kill(os.getpid(), signal.SIGTERM)
except Terminated:
    print("unwinding", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
print("went on")
"""


@pytest.mark.parametrize(
    ("inherited", "code", "said"),
    [(signal.SIG_DFL, -signal.SIGTERM, "unwinding\n"), (signal.SIG_IGN, 0, "went on\n")],
    ids=["a second one ends at once", "a parent's will to ignore it is kept"],
)
def test_sigterm_unwinds_once(inherited: signal.Handlers, code: int, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TWICE],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGTERM, inherited),
    )
    assert (done.returncode, done.stdout) == (code, said)
