"""run.log, written beside what the user sees: every stage with its seconds, every note."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from dfkd_edge.interfaces import Progress, Reporter
    from dfkd_edge.run_dir import RunDir


@dataclass(frozen=True, slots=True)
class LoggedReporter:
    """Passes everything on, and keeps in run.log what stays on the screen."""

    reporter: Reporter
    run_dir: RunDir

    @contextlib.contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Iterator[Progress]:
        """Log the stage when it ends, or what cut it off."""
        begun = time.monotonic()
        with self.reporter.stage(name, total, done) as progress:
            try:
                yield progress
            except BaseException as error:
                with contextlib.suppress(OSError):  # a full disk must not hide the error
                    self.run_dir.log(f"{name}: cut off by {type(error).__name__}")
                raise
        self.run_dir.log(f"{name}: {time.monotonic() - begun:.0f} s")

    def note(self, text: str) -> None:
        """Log the line without its colours."""
        self.reporter.note(text)
        self.run_dir.log(Text.from_markup(text).plain.strip())
