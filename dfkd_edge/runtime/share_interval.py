"""How sure a counted share is: its interval, and when it is too wide to tell anything."""

from __future__ import annotations

import math

DEVIATIONS = 1.96
"""Half the width of a 95% interval, in standard deviations."""
TOO_WIDE = 0.10
"""An interval wider than this tells little: ten points (ours)."""
TOO_FEW = "too few pictures to tell"
TOO_FEW_WITHIN = f"{TOO_FEW} within {100 * TOO_WIDE:.0f} points"


def wilson_interval(share: float, num: float) -> tuple[float, float]:
    """Interval of a share of independent trials (Wilson 1927); never a point, even at 0 and 1."""
    square = DEVIATIONS**2
    middle = (share + square / (2 * num)) / (1 + square / num)
    half = math.sqrt(share * (1 - share) / num + square / (4 * num**2))
    half *= DEVIATIONS / (1 + square / num)
    return min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))


def is_too_wide(low: float, high: float) -> bool:
    """Whether an interval is too wide to tell anything."""
    return high - low > TOO_WIDE
