"""The panel that closes `distill`, `export` and `check`: a few rows; the report has all."""

from collections.abc import Sequence

from rich.markup import escape
from rich.panel import Panel

MAX_ROWS, MAX_CHARACTERS = 8, 100
HEADING_WIDTH = 10
MORE = " ... (report)"  # Ends a row that the report finishes
Row = tuple[str, str]  # Heading and text
PATHS = frozenset({"report", "bundle", "weights", "next"})
"""Rows to copy from: they are never cut, however long a folder's name is."""


def row_text(row: Row) -> str:
    """Write a row, cut where it is too long to be read at a glance."""
    heading, text = row
    line = f"{heading:<{HEADING_WIDTH}}{text}"
    if len(line) <= MAX_CHARACTERS or heading in PATHS:
        return line
    return line[: MAX_CHARACTERS - len(MORE)].rsplit(" ", 1)[0].rstrip(",;:") + MORE


def closing_panel(title: str, rows: Sequence[Row], colour: str = "green") -> Panel:
    """Make the panel; rows without text are left out."""
    lines = [row_text(row) for row in rows if row[1]]
    assert len(lines) <= MAX_ROWS
    text, heading = escape("\n".join(lines)), escape(title)
    return Panel(text, title=heading, title_align="left", expand=False, border_style=colour)
