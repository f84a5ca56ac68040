"""What a terminal, a pipe and an interrupted user see."""

import dataclasses
import io
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from dfkd_edge.commands.ladder_view import show_ladder
from dfkd_edge.console import (
    PIPE_WIDTH,
    ConsoleReporter,
    PlainConsole,
    StageProgress,
    result_console,
)
from dfkd_edge.results.ladder import Ladder
from tests.fixtures.command import call
from tests.fixtures.ladders import figures, ladder, rung

RUNGS = ("teacher", "student", "onnx-fp32", "onnx-fp16", "onnx-int8", "engine")
DOMAINS = ("held-out surrogates", "noise and blur", "weather", "digital", "[b]style[/b]")


def measured(**others: Any) -> Ladder:
    part = figures(0.912, 480, 120, kl_to_previous=0.0123)
    domains = dict.fromkeys(DOMAINS, part) | {"weather": figures(0.912, 1_440, 120)}
    rungs = [rung(n, domains, size_bytes=12 << 20, latency_ms=123.45) for n in RUNGS]
    return ladder(*rungs, metric="agreement", **others)


@pytest.mark.parametrize("columns", ["80", "100"])
def test_the_whole_ladder_is_readable_in_80_columns(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    show_ladder(measured())
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= int(columns)
    for word in (*RUNGS, "[b]style[/b]", "91.2%", "0.0123", "12.00", "123.45"):
        assert word in shown
    assert "(views)" in shown
    assert (shown.count("(480)"), shown.count("(1,440)")) == (len(DOMAINS) - 1, 1)


def test_caveats_of_graphs_and_times_stand_below_the_ladder_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    rungs = list(measured().rungs)
    rungs[4] = dataclasses.replace(rungs[4], latency_caveats=("computed in float",))
    notes = ("the bundle holds [b]one[/b] graph",)
    show_ladder(dataclasses.replace(measured(notes=notes), rungs=tuple(rungs)))
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if line.startswith("note:")] == [
        "note: the bundle holds [b]one[/b] graph",
        "note: onnx-int8: computed in float",
    ]


def test_times_are_those_of_graphs_and_an_unsteady_one_says_once_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    caveats = ("unsteady: deviation is 0.50 of the mean",)
    rungs = [dataclasses.replace(rung, latency_caveats=caveats) for rung in measured().rungs]
    rungs[0] = dataclasses.replace(rungs[0], onnx_latency_ms=7.25, latency_ms=99.0)
    rungs[1] = dataclasses.replace(rungs[1], latency_ms=55.0)
    show_ladder(dataclasses.replace(measured(), rungs=tuple(rungs)))
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    (row,) = [line for line in lines if line.startswith("ms here as a graph ")]
    assert row.split()[5:] == ["7.25", "-", *["123.45"] * 4]
    said = " ".join(lines)
    assert said.count("unsteady") == 1
    assert "onnx-fp32, onnx-fp16, onnx-int8, engine: ms here unsteady" in said
    assert "time again when idle" in said


def test_a_pipe_gets_wide_tables_unless_columns_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.delenv("COLUMNS", raising=False)
    assert result_console().width == PIPE_WIDTH
    monkeypatch.setenv("COLUMNS", "60")
    assert result_console().width == 60


class OneHour:
    """What a heartbeat waits for; the hour of the stage passes at once, when the stage is over."""

    def __init__(self) -> None:
        self.left_s, self.is_over = 3600.0, threading.Event()

    def wait(self, timeout_s: float) -> bool:
        self.is_over.wait()
        self.left_s -= timeout_s
        return self.left_s <= 0

    def set(self) -> None:
        self.is_over.set()


@pytest.mark.parametrize(("quiet", "num_lines"), [(False, 1 + 3 + 118 + 1), (True, 0)])
def test_a_log_gets_a_line_when_a_stage_starts_and_ends_soon_and_then_every_30_s_between(
    monkeypatch: pytest.MonkeyPatch, quiet: bool, num_lines: int
) -> None:
    monkeypatch.setattr("dfkd_edge.console.Event", OneHour)
    stream = io.StringIO()
    reporter = ConsoleReporter(Console(file=stream, quiet=quiet))
    with reporter.stage("drawing [1]", 10) as progress:
        progress.advance(5, "[well]")
    lines = stream.getvalue().splitlines()
    assert len(lines) == num_lines
    if not quiet:
        assert lines[0] == "drawing [1] ..."
        assert re.fullmatch(r"✓ drawing \[1\] \d+ s", lines[-1])
        between = r"drawing \[1\]: 5/10, \d+ s \[well\]"
        assert all(re.fullmatch(between, line) for line in lines[1:-1])


def paces(total: int, done: int, updates: list[tuple[float, int]]) -> list[str]:
    """Rate and time left after each update: its second, and how much is done since the last."""
    now_s = [0.0]
    progress = StageProgress(Console(quiet=True), "drawing", total, done, clock=lambda: now_s[0])
    said = []
    for now_s[0], count in updates:
        progress.advance(count)
        said.append(progress.line().partition(" s")[2].strip(", "))
    return said


def test_the_time_left_is_that_of_late_without_a_slow_first_step_or_an_earlier_run() -> None:
    compiling = [(60.0, 1), (60.001, 1)]  # two updates at once tell nothing
    steady = [(60.0 + 0.5 * n, 2) for n in range(1, 31)]
    busy = [(75.0 + 4 * n, 1) for n in range(1, 21)]
    said = paces(1_100, 1_000, [*compiling, *steady, *busy])
    assert said[:2] == ["", ""]
    assert (said[31], said[-1]) == ("4.1/s, 10 s left", "4.0 s each, 72 s left")


@pytest.mark.parametrize("columns", [80, 100, 200])
def test_bar_share_rate_and_time_left_stay_on_a_narrow_terminal(columns: int) -> None:
    now_s = [0.0]
    stream = io.StringIO()
    console = Console(file=stream, width=columns, force_terminal=True, color_system=None)
    name = "climbing the conversion ladder, rung by rung"
    progress = StageProgress(console, name, 1_200, 900, clock=lambda: now_s[0])
    for now_s[0] in (600.0, 1_200.0, 1_800.0):
        progress.advance(1, "a long note on the domain that is shown")
    shown = progress.shown()
    console.print(shown)
    (line,) = stream.getvalue().splitlines()
    assert line.count("━") >= 9  # three quarters of the bar
    assert "climbing the conversion" in line
    assert "903/1200 " in line
    assert "600.0 s each, 49.5 h left" in line
    assert ("a long note" in line) == (columns == 200)


def test_updates_that_come_rarely_have_a_time_left_too() -> None:
    assert paces(22, 0, [(600.0 * n, 1) for n in range(1, 11)])[-1] == "600.0 s each, 2.0 h left"


def test_a_burst_of_other_work_moves_the_time_left_of_a_long_stage_little() -> None:
    steady = [(float(second), 1) for second in range(1, 601)]
    burst = [(600.0 + 4 * n, 1) for n in range(1, 11)]  # at a quarter of the speed
    assert paces(2_000, 0, [*steady, *burst])[-1].startswith("1.1 s each")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dfkd_edge", *arguments]


def on_a_terminal(folder: Path, environment: dict[str, str]) -> str:
    ours, theirs = pty.openpty()
    plain = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    plain |= {"TERM": "xterm-256color", **environment}  # rich draws no colour on a dumb terminal
    arguments = command("classes", "lint", "no.txt")
    subprocess.run(arguments, cwd=folder, env=plain, stderr=theirs, check=False)
    os.close(theirs)
    with open(ours, "rb", buffering=0) as stream:  # noqa: PTH123  a descriptor, no path
        return stream.read(4096).decode()  # once: at the end of a terminal Linux raises EIO


def test_no_color_is_obeyed(tmp_path: Path) -> None:
    assert "\x1b[1;31merror:" in on_a_terminal(tmp_path, {})
    assert "31m" not in on_a_terminal(tmp_path, {"NO_COLOR": "1"})


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_say_what_is_kept_and_how_to_go_on(
    tmp_path: Path, quickstart: Path, number: int, code: int
) -> None:
    with subprocess.Popen(
        command("distill", "--classes", str(quickstart)),
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # a job may ignore it
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "loading libraries" in line:
                process.send_signal(number)
                break
        rest = process.stderr.read()
    assert process.returncode == code, rest
    said = "stopped while loading libraries; what is done is kept; the same command goes on\n"
    assert said in rest
    assert "Traceback" not in rest


@pytest.mark.parametrize(("word", "code"), [("--version", 0), ("nonsense", 2)])
def test_a_process_ends_with_threads_joined_and_handlers_run_but_takes_nothing_down(
    word: str, code: int
) -> None:
    program = r"""
import atexit, sys, threading, time
early, register = [], atexit.register
atexit.register = lambda *words: (early.append(words[0]), register(*words))[1]
import logging
from dfkd_edge.__main__ import QuickEnd, program
class Torn:
    def __del__(self): print("torn down")
def late():
    time.sleep(0.1)
    atexit.register(print, "handled")
    sys.stdout.write("joined\n")
torn = Torn()
threading.Thread(target=late).start()
try: program()
finally:  # whose handler was there before ours would not be called
    lost = early[:[isinstance(handler, QuickEnd) for handler in early].index(True)]
    assert set(lost) <= {logging.shutdown}, lost
"""
    done = subprocess.run([sys.executable, "-c", program, word], capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    said = done.stdout.splitlines()
    assert "joined" in said
    assert said[-1] == "handled"
    assert bool(done.stderr) == bool(code)


def test_verbose_shows_the_traceback_and_keeps_the_exit_code() -> None:
    code, _, errors = call("distill", "--classes", "no.txt", "--verbose")
    assert (code, "Traceback" in errors) == (2, True)
    assert errors.splitlines()[-1].startswith("error: no such class list")


def test_what_others_named_shows_as_text_in_tables_errors_and_json() -> None:
    hostile = "\x1b]0;owned\x07 \x9b31m \u202egpj.exe :cat:"
    stream = io.StringIO()
    console = PlainConsole(file=stream, force_terminal=True, width=200)
    table = Table(title=hostile)
    table.add_column(hostile)
    table.add_row(hostile)
    console.print(table, Text(hostile, style="bold"), hostile, Panel(hostile))
    shown = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())  # rich's own colours
    assert not set("\x1b\x07\x9b\u202e") & set(shown)
    assert shown.count("\\u001b]0;owned") == shown.count(":cat:") == 6
    code, out, err = call("predict", hostile, "a.png")
    assert (code, set("\x1b\x07\x9b\u202e") & set(out + err)) == (2, set())
