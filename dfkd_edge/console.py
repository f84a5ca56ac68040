"""What the user sees while a run works: rich bars with rate and time left, one log line a stage."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from dfkd_edge.machine.interruption import note_step
from dfkd_edge.runtime.counting import duration_text

PIPE_WIDTH = 200
PACE_WINDOW_S = 30.0
"""The rate follows from at least so much time, or else from the later half of the stage: shorter
windows jump with every burst of other work on the machine (ours)."""
PACE_UPDATES = 5
"""Updates that are kept at least, where each takes long."""
PACE_SPACING_S = 0.5
"""Updates nearer to each other are kept as one: millions of steps take no memory. No rate follows
from less time than that."""


class Pace:
    """How fast a stage goes of late, so that a slow start does not last.

    Only the time between updates counts. The first one ends what is done once: loading, compiling,
    reading what an earlier run has made.
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self._updates: deque[tuple[float, int]] = deque()
        self._begun_s = 0.0

    def add(self, now_s: float, done: int) -> None:
        """Take an update: the time on any clock, and how much is done, an earlier run's too."""
        updates = self._updates
        if not updates:
            self._begun_s = now_s
        if len(updates) > 1 and now_s - updates[-2][0] < PACE_SPACING_S:
            updates.pop()
        updates.append((now_s, done))
        oldest_s = now_s - max(PACE_WINDOW_S, (now_s - self._begun_s) / 2)
        while len(updates) > PACE_UPDATES and updates[1][0] < oldest_s:
            updates.popleft()

    @property
    def rate(self) -> float | None:
        """Units a second; None before the updates span PACE_SPACING_S."""
        (begun_s, first), (now_s, last) = self._updates[0], self._updates[-1]
        is_long = now_s - begun_s >= PACE_SPACING_S
        return (last - first) / (now_s - begun_s) if last > first and is_long else None

    def words(self, total: int) -> str:
        """Say rate and time left; nothing while there is no rate."""
        rate = self.rate if self._updates else None
        if rate is None:
            return ""
        left_s = max(0, total - self._updates[-1][1]) / rate
        speed = f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"
        return f"{speed}, {duration_text(left_s)} left"


class Heartbeat:
    """A line within two seconds where there is no terminal: silence looks like a crash."""

    INTERVAL_S = 1.5
    """The import of a large library may keep the interpreter, and the line waiting, for a while."""

    def __init__(self, console: Console, line: Callable[[], str]) -> None:
        """Start to beat; `line` is asked each time."""
        self._console, self._line = console, line
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._stopped.wait(self.INTERVAL_S):
            self._console.print(self._line(), markup=False)

    def stop(self) -> None:
        """Fall silent."""
        self._stopped.set()
        self._thread.join()


class BarProgress:
    """One rich bar, or a heartbeat where there is no terminal."""

    def __init__(
        self, console: Console, name: str, total: int, done: int, refreshes_per_s: float = 10
    ) -> None:
        """Start at `done` of `total`."""
        self._name, self._total, self._done = name, total, done
        self._pace, self._words, self._note = Pace(), "", ""
        self._start = time.monotonic()
        self._bars: Progress | None = None
        self._heartbeat: Heartbeat | None = None
        self._task = TaskID(0)
        if console.is_terminal:
            self._bars = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[pace]}"),
                TextColumn("[dim]{task.fields[note]}"),
                console=console,
                transient=True,
                refresh_per_second=refreshes_per_s,
            )
            self._task = self._bars.add_task(name, total=total, completed=done, pace="", note="")
            self._bars.start()
        elif not console.quiet:
            console.print(f"{name} ...")
            self._heartbeat = Heartbeat(console, self.line)

    def line(self) -> str:
        """Say how far it is, for where there is no bar."""
        seconds = time.monotonic() - self._start
        pace = f", {self._words}" if self._words else ""
        return f"{self._name}: {self._done}/{self._total}, {seconds:.0f} s{pace} {self._note}"

    @property
    def place(self) -> str:
        """Name and count, for a sentence."""
        return f"{self._name}, {self._done} of {self._total}"

    def advance(self, count: int = 1, note: str = "") -> None:
        """Move on and show the rate."""
        self._done += count
        self._pace.add(time.monotonic(), self._done)
        self._words, self._note = self._pace.words(self._total), note
        if self._bars is not None:
            self._bars.update(self._task, completed=self._done, pace=self._words, note=note)

    def close(self) -> float:
        """Remove the bar; returns the seconds that the stage took."""
        if self._bars is not None:
            self._bars.stop()
        if self._heartbeat is not None:
            self._heartbeat.stop()
        return time.monotonic() - self._start


class ConsoleReporter:
    """Bars and notes on standard error; nothing when quiet."""

    def __init__(self, console: Console, refreshes_per_s: float = 10) -> None:
        """Write to this console; a terminal's bars are drawn so often."""
        self.console, self._refreshes_per_s = console, refreshes_per_s

    @contextlib.contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Iterator[BarProgress]:
        """Show a bar while the stage runs and its duration afterwards."""
        bar = BarProgress(self.console, name, total, done, self._refreshes_per_s)
        try:
            yield bar
        except BaseException as error:
            bar.close()
            note_step(error, bar.place)
            raise
        seconds = bar.close()
        self.note(f"[green]✓[/green] {name} [dim]{seconds:.0f} s[/dim]")

    def note(self, text: str) -> None:
        """Say one line that stays, as plain text."""
        self.console.print(text, markup=False)


def make_console(quiet: bool) -> Console:
    """Console on standard error, so that standard output carries results only."""
    is_terminal = sys.stderr.isatty()
    return Console(file=sys.stderr, quiet=quiet, highlight=False, soft_wrap=not is_terminal)


def result_console() -> Console:
    """Console on standard output; a pipe gets tables of 200 columns, so that nothing is cut."""
    is_plain = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(highlight=False, width=PIPE_WIDTH if is_plain else None)


@contextlib.contextmanager
def loading_libraries(console: Console) -> Iterator[None]:
    """Say that heavy imports are under way: a spinner, or lines where there is no terminal."""
    try:
        with contextlib.ExitStack() as stack:
            if console.is_terminal:
                stack.enter_context(console.status("loading libraries"))
            else:
                console.print("loading libraries ...")
                stack.callback(Heartbeat(console, lambda: "loading libraries ...").stop)
            yield
    except BaseException as error:
        note_step(error, "loading libraries")
        raise
