"""An export has its run for itself and leaves nothing half, however it ends."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from dfkd_edge.bundles.opening import bundles_of, open_bundle
from dfkd_edge.bundles.scratch import export_scratch
from dfkd_edge.commands.inspect_folder import inspect
from dfkd_edge.errors import RunDirError
from dfkd_edge.preflight import ExportRequest, plan_export
from dfkd_edge.runs.lock import LOCK, holder_of
from dfkd_edge.runs.run_dir import open_run
from tests.fixtures.command import invoke

EXPORT = """
import os, sys
from pathlib import Path
from dfkd_edge.bundles.scratch import export_scratch
from dfkd_edge.machine.interruption import interrupt_on_sigterm

interrupt_on_sigterm()
with export_scratch(Path(sys.argv[1])) as scratch:
    (scratch / "check.pyz").touch()
    os.kill(os.getpid(), int(sys.argv[2]))
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    with open_run(tmp_path / "run", "key", resume=True, exist_ok=False) as made:
        return made.path


def test_sigterm_leaves_nothing_and_sigkill_no_bundle_which_goes_with_the_next_export(
    run: Path,
) -> None:
    for number, num_left in ((signal.SIGTERM, 0), (signal.SIGKILL, 1)):
        subprocess.run([sys.executable, "-c", EXPORT, run, str(int(number))], check=False)
        assert len(list((run / "bundles").iterdir())) == num_left
    assert bundles_of(run) == []
    with export_scratch(run) as scratch:
        assert list((run / "bundles").iterdir()) == [scratch]
    assert list((run / "bundles").iterdir()) == []


def test_an_export_waits_out_a_command_that_asks_who_works_there(run: Path) -> None:
    probe = FileLock(run / LOCK, thread_local=False)
    probe.acquire()
    let_go = threading.Timer(0.1, probe.release)
    let_go.start()
    with export_scratch(run) as scratch:
        assert scratch.is_dir()
    let_go.join()


@pytest.mark.usefixtures("few_images")
def test_a_run_that_is_read_only_is_exported_elsewhere(
    finished_run: Path, tmp_path: Path, read_only: Callable[[Path], None]
) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    read_only(run)
    there = sorted(run.rglob("*"))
    with export_scratch(run) as scratch:
        assert run not in scratch.parents
        (scratch / "model.fp32.onnx").touch()
    assert not scratch.exists()
    flags = ("--target", "x86-cpu", "--precision", "fp32", "--max-drop", "1", "--quiet")
    result = invoke("export", run, *flags, "-o", tmp_path / "bundle")
    assert result.exit_code == 0, result.exception
    assert open_bundle(tmp_path / "bundle").manifest.status == "passed"
    assert sorted(run.rglob("*")) == there


def test_a_second_export_is_told_who_works_in_the_run(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = ExportRequest(run=run)
    with export_scratch(run):
        with pytest.raises(RunDirError, match=f"in use by process {os.getpid()}.*wait for it"):
            plan_export(request)
        with pytest.raises(RunDirError, match="in use"), export_scratch(run):
            pass
        inspect(run)
    assert "wait for process" in capsys.readouterr().out
    assert holder_of(run) == ""
