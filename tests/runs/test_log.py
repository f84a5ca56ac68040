"""run.log keeps what stayed on the screen."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from dfkd_edge.console import ConsoleReporter
from dfkd_edge.runs.log import LoggedReporter
from dfkd_edge.runs.run_dir import RunDir


def _lines(run: Path) -> list[str]:
    """What the log says after date and time."""
    return [
        line.split(" ", 2)[2] for line in (run / "run.log").read_text(encoding="utf-8").splitlines()
    ]


def test_the_log_holds_each_stage_and_note_as_plain_text(tmp_path: Path) -> None:
    screen = io.StringIO()
    reporter = LoggedReporter(ConsoleReporter(Console(file=screen)), RunDir(tmp_path))
    with reporter.stage("drawing cats", 2) as progress:
        progress.advance(2)
    reporter.note("  kept 2 of 3 images of [cats]")
    stage, note = _lines(tmp_path)
    assert re.fullmatch(r"drawing cats: \d+ s", stage)
    assert note == "kept 2 of 3 images of [cats]"
    assert "drawing cats" in screen.getvalue()
    assert "kept 2 of 3 images of [cats]" in screen.getvalue()


def test_the_log_names_the_stage_that_was_cut_off(tmp_path: Path) -> None:
    reporter = LoggedReporter(ConsoleReporter(Console(quiet=True)), RunDir(tmp_path))
    with pytest.raises(KeyboardInterrupt), reporter.stage("drawing cats", 2):
        raise KeyboardInterrupt
    assert _lines(tmp_path) == ["drawing cats: cut off by KeyboardInterrupt"]
