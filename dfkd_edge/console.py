"""What the user sees while a run works: rich bars with rate and time left, one log line a stage."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

PIPE_WIDTH = 200


class BarProgress:
    """One rich bar; where there is no terminal, a line after two seconds and every ten."""

    PLAIN_FIRST_S, PLAIN_INTERVAL_S = 2.0, 10.0

    def __init__(self, console: Console, name: str, total: int, done: int) -> None:
        """Start at `done` of `total`."""
        self._console, self._name, self._total = console, name, total
        self._first, self._done = done, done
        self._start = time.monotonic()
        self._next_line = self._start + self.PLAIN_FIRST_S
        self._bars: Progress | None = None
        self._task = TaskID(0)
        if console.is_terminal:
            self._bars = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("[dim]{task.fields[note]}"),
                console=console,
                transient=True,
            )
            self._task = self._bars.add_task(name, total=total, completed=done, rate="", note="")
            self._bars.start()
        elif not console.quiet:
            console.print(f"{name} ...")

    def advance(self, count: int = 1, note: str = "") -> None:
        """Move on and show the rate."""
        self._done += count
        now = time.monotonic()
        rate = (self._done - self._first) / max(now - self._start, 1e-6)
        if self._bars is not None:
            shown = f"{rate:.1f}/s" if rate >= 1 else f"{1 / max(rate, 1e-6):.1f} s each"
            self._bars.update(self._task, completed=self._done, rate=shown, note=note)
        elif now >= self._next_line:
            self._next_line = now + self.PLAIN_INTERVAL_S
            left_s = (self._total - self._done) / max(rate, 1e-6)
            self._console.print(
                f"{self._name}: {self._done}/{self._total}, {rate:.1f}/s, "
                f"{left_s:.0f} s left {note}"
            )

    def close(self) -> float:
        """Remove the bar; returns the seconds that the stage took."""
        if self._bars is not None:
            self._bars.stop()
        return time.monotonic() - self._start


class ConsoleReporter:
    """Bars and notes on standard error; nothing when quiet."""

    def __init__(self, console: Console) -> None:
        """Write to this console."""
        self.console = console

    @contextlib.contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Iterator[BarProgress]:
        """Show a bar while the stage runs and its duration afterwards."""
        bar = BarProgress(self.console, name, total, done)
        try:
            yield bar
        except BaseException:
            bar.close()
            raise
        seconds = bar.close()
        self.note(f"[green]✓[/green] {name} [dim]{seconds:.0f} s[/dim]")

    def note(self, text: str) -> None:
        """Say one line that stays."""
        self.console.print(text)


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
    """Say that heavy imports are under way: a spinner, or a line where there is no terminal."""
    if console.is_terminal:
        with console.status("loading libraries"):
            yield
    else:
        console.print("loading libraries ...")
        yield
