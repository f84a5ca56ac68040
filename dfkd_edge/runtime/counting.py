"""Numbers with their nouns, and durations."""

from __future__ import annotations


def counted(num: int, noun: str) -> str:
    """Return `1 fault` or `2,000 faults`."""
    return f"{num:,} {noun}{'s' * (num != 1)}"


def duration_text(seconds: float) -> str:
    """Return `42 s`, `12 min` or `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
