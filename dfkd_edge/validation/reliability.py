"""Which classes are taken for which, and whether a confidence means what it says.

Shape suffixes: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfkd_edge.validation.statistics import log_softmax

NUM_BINS = 10
"""Bins of equal width from 0 to 1, as in Guo et al., "On Calibration", ICML 2017."""


def confusion(
    expected_N: NDArray[np.int64], guess_N: NDArray[np.int64], class_names: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Count expected class -> answer -> images; pairs that do not occur are left out.

    Args:
        expected_N: what counts as right.
        guess_N: the answers; -1 is no answer and counts nowhere.
        class_names: in the order of the logits.
    """
    answered_N = (guess_N >= 0) & (expected_N >= 0)
    pairs = np.stack([expected_N[answered_N], guess_N[answered_N]], 1)
    table: dict[str, dict[str, int]] = {}
    for (expected, guess), count in zip(*np.unique(pairs, axis=0, return_counts=True), strict=True):
        table.setdefault(class_names[expected], {})[class_names[guess]] = int(count)
    return table


def reliability(
    logits_NK: NDArray[np.generic], right_N: NDArray[np.bool_], temperature: float = 1.0
) -> dict[str, Any]:
    """Compare confidence with the share of right answers, bin by bin.

    Args:
        logits_NK: as the model gives them; images without finite logits are left out.
        right_N: which answers are right.
        temperature: the logits are divided by it.

    Returns:
        `temperature`; `ece`, the expected calibration error (None without an image); `bins`, ten of
        [images, mean confidence, share right], [0, None, None] where a bin is empty.
    """
    finite_N = np.isfinite(logits_NK).all(1)
    scaled_NK = logits_NK[finite_N].astype(np.float64) / temperature
    right_N = right_N[finite_N]
    confidence_N = np.exp(log_softmax(scaled_NK)).max(1) if len(scaled_NK) else np.zeros(0)
    bin_N = np.minimum((confidence_N * NUM_BINS).astype(int), NUM_BINS - 1)
    bins: list[list[float | None]] = []
    error = 0.0
    for number in range(NUM_BINS):
        inside_N = bin_N == number
        if not inside_N.any():
            bins.append([0, None, None])
            continue
        confidence, share = confidence_N[inside_N].mean(), right_N[inside_N].mean()
        bins.append([int(inside_N.sum()), float(confidence), float(share)])
        error += inside_N.mean() * abs(confidence - share)
    return {
        "temperature": temperature,
        "ece": float(error) if len(right_N) else None,
        "bins": bins,
    }
