"""Numbers with their nouns, durations, and lists cut short."""

from __future__ import annotations

from collections.abc import Sequence

MAX_LISTED = 12  # Named in a line


def counted(num: int, noun: str) -> str:
    """Return `1 fault` or `2,000 faults`."""
    return f"{num:,} {noun}{'s' * (num != 1)}"


def first_few(texts: Sequence[str], most: int = MAX_LISTED) -> str:
    """List the first few, and count the others: `dog, cat and 3 more`."""
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def duration_text(seconds: float) -> str:
    """Return `42 s`, `12 min` or `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
