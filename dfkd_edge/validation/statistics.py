"""Is a difference real? Bootstrap intervals, the exact McNemar test, divergence, NaN count.

Two rungs see the same images, so every comparison is paired: only the images on which they differ
carry evidence.

Shape suffixes: N images, K classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 2_000
CONFIDENCE = 0.95
SIGNIFICANCE = 0.05
"""A McNemar p-value at or above this is called noise."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its bootstrap percentile interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PairedDrop:
    """What is lost from one rung to another on the same images."""

    drop: Interval
    """Share of images right before minus share right after; positive is a loss."""
    num_lost: int
    """Right before, wrong after."""
    num_won: int
    """Wrong before, right after."""
    p_value: float
    """Exact McNemar test, two-sided."""

    @property
    def is_within_noise(self) -> bool:
        """Whether chance alone explains the difference."""
        return self.p_value >= SIGNIFICANCE


def bootstrap_interval(value_N: NDArray[np.generic], seed: int = 0) -> Interval:
    """Mean of a value an image has, with the interval that resampling images gives.

    A mean depends on how often each distinct value was drawn and on nothing else, so the counts are
    drawn from their multinomial distribution: the ordinary bootstrap, without N draws a resample.

    Args:
        value_N: few distinct values: right or wrong, or the difference of two such.
        seed: of the resampling.

    Raises:
        ValueError: there is no image.
    """
    if not len(value_N):
        raise ValueError("no image to average over")
    distinct, count = np.unique(value_N.astype(np.float64), return_counts=True)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(value_N), count / len(value_N), size=NUM_RESAMPLES)
    means = drawn @ distinct / len(value_N)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(distinct @ count / len(value_N)), float(low), float(high))


def mcnemar_p_value(num_lost: int, num_won: int) -> float:
    """Exact two-sided McNemar test: are losses and wins draws of a fair coin?

    Whole numbers throughout, so that thousands of images do not underflow.
    """
    total = num_lost + num_won
    tail = sum(math.comb(total, k) for k in range(min(num_lost, num_won) + 1))
    return min(1.0, 2 * tail / 2**total) if total else 1.0


def paired_drop(
    before_N: NDArray[np.bool_], after_N: NDArray[np.bool_], seed: int = 0
) -> PairedDrop:
    """Compare what two rungs got right on the same images."""
    lost, won = int((before_N & ~after_N).sum()), int((after_N & ~before_N).sum())
    interval = bootstrap_interval(before_N.astype(np.int8) - after_N.astype(np.int8), seed)
    return PairedDrop(interval, lost, won, mcnemar_p_value(lost, won))


def log_softmax(logits_NK: NDArray[np.generic]) -> NDArray[np.float64]:
    """Log-probabilities of logits, in double precision."""
    shifted_NK = logits_NK.astype(np.float64)
    shifted_NK = shifted_NK - shifted_NK.max(1, keepdims=True)
    normal: NDArray[np.float64] = shifted_NK - np.log(np.exp(shifted_NK).sum(1, keepdims=True))
    return normal


def mean_divergence(before_NK: NDArray[np.generic], after_NK: NDArray[np.generic]) -> float | None:
    """KL divergence of the class probabilities from one rung to the next, in nats, mean over N.

    Returns:
        None when no image has finite logits on both rungs.
    """
    finite_N = np.isfinite(before_NK).all(1) & np.isfinite(after_NK).all(1)
    if not finite_N.any():
        return None
    before_NK, after_NK = log_softmax(before_NK[finite_N]), log_softmax(after_NK[finite_N])
    return float((np.exp(before_NK) * (before_NK - after_NK)).sum(1).mean())


def num_not_finite(logits_NK: NDArray[np.generic]) -> int:
    """Images with a NaN or an infinity among their logits."""
    return int((~np.isfinite(logits_NK).all(1)).sum())
