import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from dfkd_edge.console import ConsoleReporter, make_console
from dfkd_edge.files import atomic_write
from dfkd_edge.machine.interruption import interrupted_line
from dfkd_edge.runs.manifest import Manifest
from dfkd_edge.runs.run_dir import RunDir, kept_in, noting_what_is_kept


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
    stop = interrupted(Path(shutil.copytree(tiny_run, tmp_path / "run")))
    began = "stopped while distilling the student, 120 of 200; "
    kept = "kept: the prompts, the surrogate images, the student; "
    again, anew = "the same command goes on", "the same command without --no-resume goes on"
    nothing = "nothing half was left behind, run the command again"
    assert interrupted_line(stop, ["distill"]) == f"{began}{kept}{again}"
    assert interrupted_line(stop, ["distill", "--no-resume"]) == f"{began}{kept}{anew}"
    assert interrupted_line(stop, ["check"]) == f"{began}{nothing}"
    line = interrupted_line(KeyboardInterrupt(), ["run", "run.toml"])
    assert line == f"stopped; what is done is kept; {again}"


def test_parts_of_a_stage_are_kept_too(tmp_path: Path) -> None:
    assert not kept_in(tmp_path)
    for name in ("surrogates/shard-00000", "surrogates/shard-00001", "student/checkpoint"):
        atomic_write(tmp_path / f"{name}.safetensors", b"")
    RunDir(tmp_path, Manifest("k", {"prompts": {"key": "k", "files": {}}})).save()
    expected = "the prompts, 2 shards of surrogate images, the student as it was seconds ago"
    assert ", ".join(kept_in(tmp_path)) == expected


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
    command, inherit = (
        [sys.executable, "-c", TWICE],
        partial(signal.signal, signal.SIGTERM, inherited),
    )
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, preexec_fn=inherit)
    assert (done.returncode, done.stdout) == (code, said)
