"""How sure a counted share is: its interval, in words too, and when it is too wide to tell."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

DEVIATIONS = 1.96  # Half the width of a 95% interval, in standard deviations
TAIL = 0.025  # What lies beyond either end
HALVINGS = 50  # Of an interval of 1: its end is exact to 1e-15
MAX_STEPS = 10_000  # Of a fraction; a million pictures take a thousand
TOO_WIDE = 0.10  # An interval wider than this tells little: ten points (ours)
TOO_FEW = "too few pictures to tell"
TOO_FEW_WITHIN = f"{TOO_FEW} within {100 * TOO_WIDE:.0f} points"


def exact_interval(share: float, num: float) -> tuple[float, float]:
    """Interval of a share of independent trials (Clopper and Pearson 1934).

    It holds the truth at least 95 times in 100, whatever the truth and the number; never a point,
    even at 0 and 1.

    Args:
        share: of them.
        num: how many; a number of views that tell as much as so many trials may be broken.
    """
    right = share * num
    low = beta_quantile(TAIL, right, num - right + 1) if right > 0 else 0.0
    high = beta_quantile(1 - TAIL, right + 1, num - right) if right < num else 1.0
    return min(share, low), max(share, high)


def drop_interval(lost: float, won: float, num: float) -> tuple[float, float, float]:
    """Share lost minus share won of independent pairs, with the ends of the score interval.

    Tango's (1998), with half a pair as the correction for continuity: without it, it held the truth
    in 93 of 100 simulated experiments where little was lost and nothing won.

    Args:
        lost: share of the pairs that were right before and are wrong after.
        won: share of them that are right after alone.
        num: how many; a number of views that tell as much as so many pairs may be broken.
    """
    drop = lost - won

    def is_possible(true_drop: float) -> bool:
        free = true_drop * (1 - true_drop)
        linear = (2 - drop) * true_drop - lost - won
        # the likeliest share that is won if the true drop is this; rounding may leave a root of < 0
        won_then = (math.sqrt(max(0.0, linear**2 + 8 * won * free)) - linear) / 4
        variance = (2 * won_then + free) / num
        return max(0.0, abs(drop - true_drop) - 0.5 / num) ** 2 <= DEVIATIONS**2 * variance

    def end(outermost: float) -> float:
        possible, impossible = drop, outermost
        for _ in range(HALVINGS):
            middle = (possible + impossible) / 2
            if is_possible(middle):
                possible = middle
            else:
                impossible = middle
        return possible

    return drop, end(-1), end(1)


@functools.lru_cache(maxsize=4_096)
def beta_quantile(share: float, a: float, b: float) -> float:
    """Where the beta distribution of `a` and `b` has so much below."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _beta_below(middle, a, b) < share else (low, middle)
    return (low + high) / 2


def _beta_below(x: float, a: float, b: float) -> float:
    """Share of the beta distribution below x, by its continued fraction (Lentz's method)."""
    if x > (a + 1) / (a + b + 2):  # it converges fast on the other side of the middle
        return 1 - _beta_below(1 - x, b, a)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(scale + a * math.log(x) + b * math.log1p(-x)) / a
    numerator, denominator = 1.0, 1 / _no_zero(1 - (a + b) * x / (a + 1))
    fraction = denominator
    for step in range(1, MAX_STEPS):
        even, odd = a + 2 * step, a + 2 * step + 1
        for term in (
            step * (b - step) * x / ((even - 1) * even),
            -(a + step) * (a + b + step) * x / (even * odd),
        ):
            denominator = 1 / _no_zero(1 + term * denominator)
            numerator = _no_zero(1 + term / numerator)
            fraction *= numerator * denominator
        if abs(numerator * denominator - 1) < 1e-12:
            break
    return front * fraction


def _no_zero(value: float) -> float:
    return value if abs(value) > 1e-300 else 1e-300


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
