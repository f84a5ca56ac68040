"""What check.pyz tells its user: lines that stay, and how far long work is."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from dfkd_edge.runtime.plain_text import one_line, printable

if TYPE_CHECKING:
    from dfkd_edge.runtime.faults import Fault

LINE_WIDTH = 79


class Printer:
    """Tells the user what happens; standard output is kept for --json."""

    TICK_EVERY_S = 1.5  # More than two seconds of silence look like a crash

    def __init__(self, quiet: bool, to_stderr: bool) -> None:
        """Write lines to standard error instead of standard output where `to_stderr`."""
        self._quiet, self._stream = quiet, sys.stderr if to_stderr else sys.stdout
        self._last = time.monotonic()
        self._is_ticking = False

    def say(self, text: str) -> None:
        """Write one line, unless quiet."""
        if not self._quiet:
            self._clear_tick()
            self._stream.write(one_line(printable(text)) + "\n")  # names may hold line breaks
            self._stream.flush()
            self._last = time.monotonic()  # a line breaks the silence as well

    def warn(self, text: str) -> None:
        """Write one line to standard error, always."""
        self._clear_tick()
        sys.stderr.write(one_line(printable(text)) + "\n")

    def fault(self, fault: Fault) -> None:
        """Write one line about a fault, always."""
        self.warn(f"error: {fault}")

    def tick(self, text: str) -> None:
        """Show how far work is, seldom: one line written over on a terminal, else a new one."""
        now = time.monotonic()
        if self._quiet or now - self._last < self.TICK_EVERY_S:
            return
        self._last = now
        text = one_line(printable(text))
        self._is_ticking = sys.stderr.isatty()  # in a log, written over means one endless line
        shown = "\r" + text[:LINE_WIDTH].ljust(LINE_WIDTH) if self._is_ticking else text + "\n"
        sys.stderr.write(shown)
        sys.stderr.flush()

    def _clear_tick(self) -> None:
        if self._is_ticking:
            sys.stderr.write("\r" + " " * LINE_WIDTH + "\r")
            sys.stderr.flush()
            self._is_ticking = False
