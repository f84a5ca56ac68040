"""Fits temperature and reject threshold of a bundle on surrogate images; no real image is needed.

Shape suffixes: N images, K classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfkd_edge.interfaces import Runner
from dfkd_edge.runtime.confidence import Confidence
from dfkd_edge.validation.evaluation_images import EvaluationSet
from dfkd_edge.validation.reliability import reliability
from dfkd_edge.validation.statistics import log_softmax

IMAGES_PER_DOMAIN = 160
"""Of the clean and of each corrupted domain: a few seconds on a CPU (ours)."""
SHARE_REJECTED = 0.05
"""Of the right answers on clean surrogates, so many may become "unknown" (ours)."""
MAX_TEMPERATURE = 20.0
MAX_LEFT_OUT = 50
"""Classes that are left out in turn to measure how strangers are told apart."""
SEARCH_STEPS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedConfidence:
    """What was fitted, and what it bought on the same images."""

    temperature: float
    """Logits are divided by it."""
    reject_threshold: float
    """Probability of the first class below which the answer is "unknown"."""
    ece_before: float | None
    """Expected calibration error at temperature 1."""
    ece_after: float | None
    """The same at the fitted temperature."""
    unknown_auroc: float | None
    """Known against unknown pictures by confidence, each class left out in turn; 0.5 is chance."""
    num_images: int
    """Surrogate images, clean and corrupted."""


def fit_confidence(runner: Runner, side_px: int, suite: EvaluationSet) -> FittedConfidence:
    """Run the model that ships on held-out surrogates, clean and corrupted, and fit.

    Args:
        runner: the last rung, INT8 where there is one.
        side_px: side of its input.
        suite: the first domain is the clean one.
    """
    logits, labels, clean = [], [], []
    for number, source in enumerate(suite.sources):
        batch = next(iter(source.batches(IMAGES_PER_DOMAIN, [])))
        logits.append(runner(batch.at(side_px)).logits)
        labels.append(batch.labels)
        clean.append(np.full(len(batch.labels), number == 0))
    logits_NK, label_N = np.concatenate(logits), np.concatenate(labels)
    return fit(logits_NK, label_N, np.concatenate(clean))


def fit(
    logits_NK: NDArray[np.generic], label_N: NDArray[np.int64], clean_N: NDArray[np.bool_]
) -> FittedConfidence:
    """Fit on logits whose labels are known; the threshold is read off the clean images alone."""
    finite_N = np.isfinite(logits_NK).all(1)
    logits_NK, label_N, clean_N = logits_NK[finite_N], label_N[finite_N], clean_N[finite_N]
    temperature = best_temperature(logits_NK, label_N)
    right_N = logits_NK.argmax(1) == label_N
    confidence_N = Confidence(temperature).probabilities(logits_NK).max(1)
    sure_N = confidence_N[right_N & clean_N]
    return FittedConfidence(
        temperature=temperature,
        reject_threshold=float(np.quantile(sure_N, SHARE_REJECTED)) if len(sure_N) else 0.0,
        ece_before=reliability(logits_NK, right_N)["ece"],
        ece_after=reliability(logits_NK, right_N, temperature)["ece"],
        unknown_auroc=unknown_auroc(logits_NK, label_N, temperature),
        num_images=len(label_N),
    )


def best_temperature(logits_NK: NDArray[np.generic], label_N: NDArray[np.int64]) -> float:
    """Temperature with the least negative log-likelihood, which is convex in its inverse."""

    def loss(inverse: float) -> float:
        scaled_NK = logits_NK.astype(np.float64) * inverse
        return float(-log_softmax(scaled_NK)[np.arange(len(label_N)), label_N].mean())

    if not len(label_N):
        return 1.0
    low, high = 1 / MAX_TEMPERATURE, MAX_TEMPERATURE
    for _ in range(SEARCH_STEPS):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return 2 / (low + high)


def unknown_auroc(
    logits_NK: NDArray[np.generic], label_N: NDArray[np.int64], temperature: float
) -> float | None:
    """Mean area under the curve of telling a left-out class from the others by confidence.

    Returns:
        None with fewer than three classes: what is left would be one answer.
    """
    if logits_NK.shape[1] < 3:
        return None
    areas = []
    for left_out in np.unique(label_N)[:MAX_LEFT_OUT]:
        rest_NK = np.delete(logits_NK, left_out, axis=1)
        confidence_N = Confidence(temperature).probabilities(rest_NK).max(1)
        unknown_N = label_N == left_out
        areas.append(_area(confidence_N[~unknown_N], confidence_N[unknown_N]))
    finite = [area for area in areas if math.isfinite(area)]
    return float(np.mean(finite)) if finite else None


def _area(known_N: NDArray[np.float64], unknown_M: NDArray[np.float64]) -> float:
    """Probability that a known image is surer than an unknown one; ties count half."""
    if not len(known_N) or not len(unknown_M):
        return math.nan
    ordered_M = np.sort(unknown_M)
    below = np.searchsorted(ordered_M, known_N, "left") + np.searchsorted(
        ordered_M, known_N, "right"
    )
    return float(below.mean() / 2 / len(unknown_M))
