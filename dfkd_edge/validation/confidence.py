"""Fits temperature and reject threshold of a bundle on surrogate images; no real image is needed.

Shape suffixes: N images, M images that were not fitted on, K classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfkd_edge.interfaces import Runner
from dfkd_edge.runtime.confidence import SHARE_REJECTED, Confidence
from dfkd_edge.validation.evaluation_images import EvaluationSet
from dfkd_edge.validation.reliability import reliability
from dfkd_edge.validation.statistics import log_softmax

IMAGES_PER_DOMAIN = 240
"""Of the clean and of each corrupted domain: a few seconds on a CPU (ours)."""
MAX_TEMPERATURE = 20.0
MAX_LEFT_OUT = 50
"""Classes that are left out in turn to measure how strangers are told apart."""
SEARCH_STEPS = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedConfidence:
    """What was fitted on half of the pictures, and what it bought on the other half.

    Right is the class that was asked of the synthesizer, not the teacher's answer.
    """

    temperature: float
    """Logits are divided by it."""
    reject_threshold: float
    """Probability of the first class below which the answer is "unknown"."""
    ece_before: float | None
    """Expected calibration error at temperature 1, on pictures that were not fitted on."""
    ece_after: float | None
    """The same at the fitted temperature, on the same pictures."""
    unknown_auroc: float | None
    """Known against unknown pictures by confidence, each class left out in turn; 0.5 is chance.
    On pictures that were not fitted on."""
    num_images: int
    """Surrogate images, clean and corrupted, that were fitted on."""
    num_measured: int
    """Images of other pictures, on which the three figures were measured."""


def fit_confidence(runner: Runner, side_px: int, suite: EvaluationSet) -> FittedConfidence:
    """Run the model that ships on held-out surrogates, clean and corrupted, and fit.

    Args:
        runner: the last rung, INT8 where there is one.
        side_px: side of its input.
        suite: the first domain is the clean one.
    """
    logits, labels, clean, pictures = [], [], [], []
    for number, source in enumerate(suite.sources):
        batch = next(iter(source.batches(IMAGES_PER_DOMAIN, [])))
        logits.append(runner(batch.at(side_px)).logits)
        labels.append(batch.labels)
        clean.append(np.full(len(batch.labels), number == 0))
        pictures.append(batch.pictures)
    return fit(*(np.concatenate(parts) for parts in (logits, labels, clean, pictures)))


def fit(
    logits_NK: NDArray[np.generic],
    label_N: NDArray[np.int64],
    clean_N: NDArray[np.bool_],
    picture_N: NDArray[np.int64],
) -> FittedConfidence:
    """Fit on every other picture, measure on the rest.

    Args:
        logits_NK: of images whose labels are known.
        label_N: the classes that were asked for.
        clean_N: which images are not corrupted; the threshold is read off those alone.
        picture_N: the picture that each image is a view of; its views stay together.
    """
    finite_N = np.isfinite(logits_NK).all(1)
    fitted_N = finite_N & (np.unique(picture_N, return_inverse=True)[1].reshape(-1) % 2 == 0)
    measured_N = finite_N & ~fitted_N
    temperature = best_temperature(logits_NK[fitted_N], label_N[fitted_N])
    right_N = logits_NK.argmax(1) == label_N
    sure_NK = logits_NK[fitted_N & right_N & clean_N]
    sure_N = Confidence(temperature).probabilities(sure_NK).max(1)
    logits_MK, right_M = logits_NK[measured_N], right_N[measured_N]
    return FittedConfidence(
        temperature=temperature,
        reject_threshold=float(np.quantile(sure_N, SHARE_REJECTED)) if len(sure_N) else 0.0,
        ece_before=reliability(logits_MK, right_M)["ece"],
        ece_after=reliability(logits_MK, right_M, temperature)["ece"],
        unknown_auroc=unknown_auroc(logits_MK, label_N[measured_N], temperature),
        num_images=int(fitted_N.sum()),
        num_measured=int(measured_N.sum()),
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
