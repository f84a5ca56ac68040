"""How sure a counted share is: its interval, in words too, and when it is too wide to tell."""

from __future__ import annotations

import math
from collections.abc import Sequence

DEVIATIONS = 1.96  # Half the width of a 95% interval, in standard deviations
TOO_WIDE = 0.10  # An interval wider than this tells little: ten points (ours)
TOO_FEW = "too few pictures to tell"
TOO_FEW_WITHIN = f"{TOO_FEW} within {100 * TOO_WIDE:.0f} points"


def wilson_interval(share: float, num: float) -> tuple[float, float]:
    """Interval of a share of independent trials (Wilson 1927); never a point, even at 0 and 1."""
    square = DEVIATIONS**2
    middle = (share + square / (2 * num)) / (1 + square / num)
    half = math.sqrt(share * (1 - share) / num + square / (4 * num**2))
    half *= DEVIATIONS / (1 + square / num)
    # at 0 and 1 an end equals the share but for rounding, which may put it on the wrong side
    return min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half))


def mean_interval(
    figures: Sequence[tuple[float, float, float]], *, is_shared: bool = False
) -> tuple[float, float, float]:
    """Mean and interval of figures, each a value, a low and a high end.

    The distances to the ends are recovered variances and add up as such (Zou and Donner 2008),
    unless all figures come from the same pictures, which may err together.

    Args:
        figures: one a domain.
        is_shared: whether the domains show the same pictures.
    """
    count = len(figures)
    mean, lowest, highest = (sum(ends) / count for ends in zip(*figures))
    if is_shared:
        return mean, lowest, highest
    below = math.hypot(*(value - low for value, low, _ in figures)) / count
    above = math.hypot(*(high - value for value, _, high in figures)) / count
    return mean, mean - below, mean + above


def interval_text(low: float, high: float) -> str:
    """Write an interval as host and device both print it."""
    return f"95% interval {100 * low:.1f}% to {100 * high:.1f}%"


def is_too_wide(low: float, high: float) -> bool:
    """Whether an interval is too wide to tell anything."""
    return high - low > TOO_WIDE
