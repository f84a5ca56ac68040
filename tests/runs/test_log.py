import io
import re
import sys
from pathlib import Path

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dfkd_edge.console import ConsoleReporter
from dfkd_edge.errors import EnvironmentLackingError
from dfkd_edge.runs.log import FOLDER, LoggedReporter, mirrored, require_tensorboard
from dfkd_edge.runs.run_dir import RunDir, open_run


def _lines(run: Path) -> list[str]:
    lines = (run / "run.log").read_text(encoding="utf-8").splitlines()
    return [line.split(" ", 2)[2] for line in lines]  # without date and time


def test_the_log_holds_each_stage_and_note_as_plain_text(tmp_path: Path) -> None:
    screen = io.StringIO()
    reporter = LoggedReporter(ConsoleReporter(Console(file=screen)), RunDir(tmp_path))
    with reporter.stage("drawing cats", 2) as progress:
        progress.advance(2)
    reporter.note("  kept 2 of 3 images of [cats]")
    stage, note = _lines(tmp_path)
    assert re.fullmatch(r"drawing cats: \d+ s", stage)
    assert note == "kept 2 of 3 images of [cats]"
    assert all(text in screen.getvalue() for text in ("drawing cats", note))


def test_the_log_names_the_stage_that_was_cut_off(tmp_path: Path) -> None:
    reporter = LoggedReporter(ConsoleReporter(Console(quiet=True)), RunDir(tmp_path))
    with pytest.raises(KeyboardInterrupt), reporter.stage("drawing cats", 2):
        raise KeyboardInterrupt
    assert _lines(tmp_path) == ["drawing cats: cut off by KeyboardInterrupt"]


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run / FOLDER)).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_the_mirror_shows_each_step_once_however_often_the_run_was_started(tmp_path: Path) -> None:
    for start in (0, 2):
        with open_run(tmp_path, "key", resume=True, exist_ok=False) as run_dir, mirrored(run_dir):
            for step in range(start, start + 3):
                run_dir.append_metrics("student", step, {"loss": step / 2, "agreement": 0.5})
    assert scalars(tmp_path) == {
        "student/loss": [(step, step / 2) for step in range(5)],
        "student/agreement": [(step, 0.5) for step in range(5)],
    }


def test_a_stage_that_is_done_again_shows_new_values_and_the_others_their_old(
    tmp_path: Path,
) -> None:
    first = [("prompts", 1, 5.0), *(("student", step, 1.0) for step in (1, 2, 3))]
    for key, rows in (("a", first), ("b", [("student", step, 9.0) for step in (2, 3)])):
        with open_run(tmp_path, key, resume=True, exist_ok=True) as run_dir, mirrored(run_dir):
            for stage, step, loss in rows:
                run_dir.append_metrics(stage, step, {"loss": loss})
    assert scalars(tmp_path) == {
        "prompts/loss": [(1, 5.0)],
        "student/loss": [(1, 1.0), (2, 9.0), (3, 9.0)],
    }


def test_metrics_that_come_after_the_mirror_was_closed_go_to_the_file_alone(tmp_path: Path) -> None:
    with open_run(tmp_path / "run", "key", resume=True, exist_ok=False) as run_dir:
        with mirrored(run_dir):
            pass
        run_dir.append_metrics("student", 1, {"loss": 1.0})
        assert len(run_dir.read_metrics()) == 1
    assert scalars(tmp_path / "run") == {}


def test_what_to_install_is_said_where_tensorboard_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    require_tensorboard()
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(EnvironmentLackingError, match=r"pip install 'dfkd-edge\[tensorboard\]'"):
        require_tensorboard()
