"""Numbers with their nouns, and how sure a counted share is."""

from __future__ import annotations

import math

DEVIATIONS = 1.96
"""Half the width of a 95% interval, in standard deviations."""
TOO_WIDE = 0.10
"""An interval wider than this tells little: ten points (ours)."""
TOO_FEW = "too few pictures to tell"


def wilson_interval(share: float, num: float) -> tuple[float, float]:
    """Interval of a share of independent trials (Wilson 1927); never a point, even at 0 and 1."""
    square = DEVIATIONS**2
    middle = (share + square / (2 * num)) / (1 + square / num)
    half = math.sqrt(share * (1 - share) / num + square / (4 * num**2))
    half *= DEVIATIONS / (1 + square / num)
    return min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))


def counted(num: int, noun: str) -> str:
    """Return `1 fault` or `2,000 faults`."""
    return f"{num:,} {noun}{'s' * (num != 1)}"


def duration_text(seconds: float) -> str:
    """Return `42 s`, `12 min` or `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
