import io
import sys

import pytest

from dfkd_edge.runtime.counting import counted, duration_text
from dfkd_edge.runtime.printer import Printer
from dfkd_edge.runtime.timing import TimingRequest, measure


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Printer, "TICK_EVERY_S", 0.0)


@pytest.mark.usefixtures("hurried")
def test_a_pipe_gets_lines_and_a_terminal_one_line_that_is_cleared(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    voice = Printer(quiet=False, to_stderr=False)
    voice.tick("1 of 2")
    voice.say("done")
    assert capsys.readouterr() == ("done\n", "1 of 2\n")
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


@pytest.mark.usefixtures("hurried")
def test_quiet_says_faults_only(capsys: pytest.CaptureFixture[str]) -> None:
    voice = Printer(quiet=True, to_stderr=False)
    voice.say("a")
    voice.tick("b")
    voice.warn("stopped")
    assert capsys.readouterr() == ("", "stopped\n")


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


def test_what_is_told_while_timing_counts_for_no_inference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, told = [0.0], []
    monkeypatch.setattr("dfkd_edge.runtime.timing.time.perf_counter", lambda: clock[0])

    def infer() -> None:
        clock[0] += 0.01

    def tell(seconds: float) -> None:
        told.append(seconds)
        clock[0] += 5

    latency = measure(infer, 2, TimingRequest(warmup_ms=0, duration_s=0), tell)
    assert len(told) == latency.num_iterations == 20
    assert latency.max_ms == pytest.approx(10)
    assert latency.throughput_per_s == pytest.approx(200)


def test_numbers_agree_with_their_nouns() -> None:
    assert [counted(n, "fault") for n in (0, 1, 2)] == ["0 faults", "1 fault", "2 faults"]
    assert [duration_text(s) for s in (42, 600, 9000)] == ["42 s", "10 min", "2.5 h"]
