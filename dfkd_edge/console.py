"""What the user sees while a run works: rich bars on a terminal, a few plain lines elsewhere."""

import contextlib
import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from threading import Event, Thread
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.segment import Segment
from rich.text import Text

from dfkd_edge.machine.interruption import note_step
from dfkd_edge.runtime.counting import duration_text
from dfkd_edge.runtime.plain_text import printable

PIPE_WIDTH = 200  # Columns of a table that is not shown on a terminal
WIDE, NARROW_BAR, FIGURES = 120, 12, 50
"""Columns from which a bar has room for all; below, its length and that of all beside the name:
elapsed time and notes are left out there, and the name is cut, but no figure."""
FIRST_BEAT_S, BEAT_S = 5.0, 30.0
"""Until the first further line of a stage in a log, and at last between two: enough to see that it
lives, few enough to read."""
PACE_WINDOW_S = 30.0
"""The rate is that of the later half of the stage, which forgets a slow start, or of so much time
at least: shorter windows jump with every burst of other work on the machine (measured)."""
PACE_MIN_S = 0.5
"""No rate from updates nearer together: two at once would promise to be done in a moment."""


@contextlib.contextmanager
def heartbeat(console: Console, name: str, line: Callable[[], str]) -> Iterator[None]:
    """Print that something has begun, and `line()` until it ends: soon, then ever more seldom."""
    stopped = Event()

    def beat() -> None:
        wait_s = FIRST_BEAT_S
        while not stopped.wait(wait_s):
            console.print(line(), markup=False)
            wait_s = min(2 * wait_s, BEAT_S)

    console.print(f"{name} ...", markup=False)
    thread = Thread(target=beat, daemon=True)  # never keeps alive a process that has failed
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


class PlainConsole(Console):
    """A console that shows what others wrote as text: no name moves the cursor or hides words."""

    def __init__(self, **options: Any) -> None:
        """Take rich's options; `:cat:` stays a name and becomes no picture."""
        super().__init__(emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Escape hidden characters before a cell is measured: what is longer is cut."""
        return super().render_str(printable(text), **options)

    def render(self, *args: Any, **options: Any) -> Iterator[Segment]:
        """Turn anything into pieces of text with a style; in the text, hidden characters show."""
        for piece in super().render(*args, **options):
            is_plain = piece.control or piece.text.isprintable()
            yield piece if is_plain else Segment(printable(piece.text), piece.style)


class StageProgress:
    """How far one stage is, as a rich bar or as a line."""

    def __init__(
        self,
        console: Console,
        name: str,
        total: int,
        done: int = 0,
        refreshes_per_s: float = 10,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start the clock at `done` of `total`; nothing is shown yet."""
        from rich import progress as bars  # 10 ms, which `--help` does not wait for

        self._console, self._done_before = console, done
        is_wide = console.width >= WIDE
        self._bars = bars.Progress(
            bars.SpinnerColumn(),
            bars.TextColumn("{task.fields[shown]}", markup=False),  # a name may hold brackets
            bars.BarColumn(40 if is_wide else NARROW_BAR),
            bars.MofNCompleteColumn(),
            *[bars.TimeElapsedColumn()] * is_wide,
            bars.TextColumn("{task.fields[pace]}"),
            *[bars.TextColumn("{task.fields[note]}", style="dim", markup=False)] * is_wide,
            console=console,
            transient=True,  # the line of `ConsoleReporter.stage` stays in its place
            refresh_per_second=refreshes_per_s,
            get_time=clock,  # tests bring one of their own
        )
        room = console.width if is_wide else max(console.width - FIGURES, 4)
        shown = textwrap.shorten(name, room, placeholder=" ...")
        self._bars.add_task(name, total=total, completed=done, pace="", note="", shown=shown)
        self._task = self._bars.tasks[0]

    def shown(self) -> contextlib.AbstractContextManager[object]:
        """Show the bar, or lines where there is no terminal."""
        if self._console.is_terminal:  # bars in a log would be thousands of lines
            return self._bars
        return heartbeat(self._console, self._task.description, self.line)

    def advance(self, count: int = 1, note: str = "") -> None:
        """Move on; `note` is shown beside the bar."""
        self._bars.speed_estimate_period = max(PACE_WINDOW_S, self.seconds / 2)
        self._bars.update(self._task.id, advance=count, note=note)
        self._task.fields["pace"] = self._pace()

    def _pace(self) -> str:
        """Say `4.0/s, 12 s left`; empty before the first two updates that lie apart.

        rich counts from the first update on: what is done once (loading, compiling) leaves out.
        """
        speed, left_s = self._task.speed, self._task.time_remaining
        done_here = self._task.completed - self._done_before
        if not speed or left_s is None or speed * PACE_MIN_S > done_here:
            return ""
        rate = f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each"
        return f"{rate}, {duration_text(left_s)} left"

    @property
    def seconds(self) -> float:
        """How long the stage has run."""
        return self._task.elapsed or 0.0

    @property
    def place(self) -> str:
        """Name and count, for a sentence."""
        return f"{self._task.description}, {self._task.completed} of {self._task.total}"

    def line(self) -> str:
        """Say in one line what the bar shows."""
        task, pace = self._task, self._task.fields["pace"]
        seconds = f"{self.seconds:.0f} s{pace and f', {pace}'}"
        return f"{task.description}: {task.completed}/{task.total}, {seconds} {task.fields['note']}"


class ConsoleReporter:
    """Shows stages and notes on standard error; nothing when the console is quiet."""

    def __init__(self, console: Console, refreshes_per_s: float = 10) -> None:
        """Write to this console; `refreshes_per_s` is how often a terminal's bars are drawn."""
        self.console, self._refreshes_per_s = console, refreshes_per_s

    @contextlib.contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Iterator[StageProgress]:
        """Show a stage while it runs, and its duration afterwards."""
        progress = StageProgress(self.console, name, total, done, self._refreshes_per_s)
        try:
            with progress.shown():
                yield progress
        except BaseException as error:
            note_step(error, progress.place)
            raise
        seconds = f"{progress.seconds:.0f} s"
        self.console.print(f"[green]✓[/green] {escape(name)} [dim]{seconds}[/dim]")

    def note(self, text: str) -> None:
        """Say one line that stays, as plain text."""
        self.console.print(text, markup=False)


def spreadsheet_cell(value: object) -> object:
    """Keep a cell of a CSV from running: names of folders, pictures and classes are not ours."""
    is_formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if is_formula else value


def make_console(quiet: bool) -> Console:
    """Console on standard error, so that standard output carries results only."""
    is_terminal = sys.stderr.isatty()  # a line of a log is never wrapped
    return PlainConsole(file=sys.stderr, quiet=quiet, highlight=False, soft_wrap=not is_terminal)


def result_console() -> Console:
    """Console on standard output; a pipe gets tables of PIPE_WIDTH columns: nothing is cut."""
    is_plain = not sys.stdout.isatty() and "COLUMNS" not in os.environ  # rich obeys COLUMNS
    return PlainConsole(highlight=False, width=PIPE_WIDTH if is_plain else None)


@contextlib.contextmanager
def loading_libraries(console: Console) -> Iterator[None]:
    """Say that heavy imports are under way: a spinner, or lines where there is no terminal."""
    doing = "loading libraries"
    is_terminal = console.is_terminal
    try:
        with console.status(doing) if is_terminal else heartbeat(console, doing, lambda: doing):
            yield
    except BaseException as error:
        note_step(error, doing)
        raise
