import io
import sys

import pytest

from dfkd_edge.runtime.counting import counted, duration_text
from dfkd_edge.runtime.printer import Printer


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_lines_a_terminal_one_that_is_cleared_and_who_wants_quiet_faults(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Printer, "TICK_EVERY_S", 0.0)
    for quiet, told in ((False, ("done\n", "1 of 2\nstopped\n")), (True, ("", "stopped\n"))):
        voice = Printer(quiet=quiet, to_stderr=False)
        voice.tick("1 of 2")
        voice.say("done")
        voice.warn("stopped")
        assert capsys.readouterr() == told
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    voice = Printer(quiet=False, to_stderr=True)
    voice.tick("x" * 200)
    voice.tick("2 of 2")
    voice.say("done")
    *drawn, last = terminal.getvalue().split("\r")
    assert last == "done\n"
    assert all(len(line) < 80 for line in drawn)
    assert drawn[-1].strip() == ""


def test_a_name_of_two_lines_makes_one(capsys: pytest.CaptureFixture[str]) -> None:
    printer = Printer(quiet=False, to_stderr=False)
    printer.say("a folder\npassed: all is well")
    printer.warn("error: a\r\nb")
    assert capsys.readouterr() == ("a folder passed: all is well\n", "error: a\\u000d b\n")


def test_ticks_are_seldom_and_wait_for_silence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("dfkd_edge.runtime.printer.time.monotonic", lambda: clock[0])
    voice = Printer(quiet=False, to_stderr=False)
    for second in range(100):
        clock[0] += 0.1
        voice.tick(f"{second}")
    assert len(capsys.readouterr().err.splitlines()) == 6
    voice.say("line")
    voice.tick("too soon")
    assert capsys.readouterr() == ("line\n", "")


def test_numbers_agree_with_their_nouns() -> None:
    assert [counted(n, "fault") for n in (0, 1, 2)] == ["0 faults", "1 fault", "2 faults"]
    assert [duration_text(s) for s in (42, 600, 9000)] == ["42 s", "10 min", "2.5 h"]
