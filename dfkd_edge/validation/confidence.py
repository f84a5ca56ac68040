"""Fits temperature and reject threshold of a bundle on surrogate images; no real image is needed.

A temperature is one number, but the images are few and drawn from corrupted domains: fitted on some
pictures it may spoil the confidences of others. It is kept only where cross-validation over
pictures says that it helps.

Shape suffixes: N images, K classes.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dfkd_edge.interfaces import Runner
from dfkd_edge.results.confidence import Bin, FittedConfidence, Reliability
from dfkd_edge.results.ladder import HELDOUT_DOMAIN
from dfkd_edge.runtime.confidence import SHARE_REJECTED, Confidence
from dfkd_edge.validation.evaluation_images import VIEWS_DOMAIN, EvaluationSet
from dfkd_edge.validation.statistics import log_softmax

IMAGES_PER_DOMAIN = 240  # Of the clean and of each corrupted domain: a few seconds on a CPU (ours)
MAX_TEMPERATURE = 20.0
NUM_FOLDS = 5  # Groups of pictures; each is measured at the temperature that all others ask for
MAX_LEFT_OUT = 50  # Classes that are left out in turn to measure how strangers are told apart
SEARCH_STEPS = 30  # Bisections of its logarithm: the last interval is 1e-8 of the value wide


def fit_confidence(runner: Runner, side_px: int, suite: EvaluationSet) -> FittedConfidence:
    """Run the model that ships on views of held-out surrogates, clean and corrupted, and fit.

    Args:
        runner: the last rung, INT8 where there is one.
        side_px: side of its input.
        suite: built of surrogates.
    """
    rows = []
    for source in suite.sources:
        if source.name != HELDOUT_DOMAIN:  # shown whole: the same pictures are among the views
            batch = next(source.batches(IMAGES_PER_DOMAIN, []))
            is_clean_N = np.full(len(batch.labels), source.name == VIEWS_DOMAIN)
            logits_NK = runner(batch.at(side_px)).logits
            rows.append((logits_NK, batch.labels, is_clean_N, batch.pictures))
    return fit(*map(np.concatenate, zip(*rows, strict=True)))


def fit(
    logits_NK: NDArray[np.generic],
    label_N: NDArray[np.int64],
    clean_N: NDArray[np.bool_],
    picture_N: NDArray[np.int64],
) -> FittedConfidence:
    """Fit on all pictures, and keep the temperature if it helps pictures it was not fitted on.

    Args:
        logits_NK: of images whose labels are known.
        label_N: the classes that were asked for.
        clean_N: which images are not corrupted; the threshold is read off those alone.
        picture_N: the picture that each image is a view of; its views stay together.
    """
    finite_N = np.isfinite(logits_NK).all(1)  # one NaN would make every mean a NaN
    logits_NK, label_N, clean_N = logits_NK[finite_N], label_N[finite_N], clean_N[finite_N]
    picture_N = picture_N[finite_N]
    scaled_NK = _scaled_by_others(logits_NK, label_N, picture_N)
    (ece_before, loss_before), (ece_after, loss_after) = (
        _errors(logits, label_N) if len(label_N) else (None, None)
        for logits in (logits_NK, scaled_NK)
    )
    fitted = best_temperature(logits_NK, label_N)
    is_better = (ece_after or 0) < (ece_before or 0) and (loss_after or 0) < (loss_before or 0)
    temperature = fitted if is_better else 1.0
    sure_NK = logits_NK[clean_N & (logits_NK.argmax(1) == label_N)]
    sure_N = Confidence(temperature).probabilities(sure_NK).max(1)
    return FittedConfidence(
        temperature=temperature,
        fitted_temperature=fitted,
        reject_threshold=float(np.quantile(sure_N, SHARE_REJECTED)) if len(sure_N) else 0.0,
        ece_before=ece_before,
        ece_after=ece_after,
        log_loss_before=loss_before,
        log_loss_after=loss_after,
        unknown_auroc=unknown_auroc(scaled_NK if is_better else logits_NK, label_N),
        num_images=len(label_N),
        num_pictures=len(np.unique(picture_N)),
    )


def _scaled_by_others(
    logits_NK: NDArray[np.generic], label_N: NDArray[np.int64], picture_N: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Divide the logits of each group of pictures by the temperature fitted on all others.

    Groups are drawn by chance: the numbers of pictures go through the classes in turn.
    """
    scaled_NK = np.array(logits_NK, np.float64)
    number_N = np.unique(picture_N, return_inverse=True)[1].reshape(-1)
    num_pictures = int(number_N.max(initial=-1)) + 1
    # views of a picture stay in one fold: they err alike, and would tell the fit what it is asked
    fold_N = (np.random.default_rng(0).permutation(num_pictures) % NUM_FOLDS)[number_N]
    for fold in range(min(NUM_FOLDS, num_pictures)):
        inside_N = fold_N == fold
        scaled_NK[inside_N] /= best_temperature(logits_NK[~inside_N], label_N[~inside_N])
    return scaled_NK


def _errors(logits_NK: NDArray[np.generic], label_N: NDArray[np.int64]) -> tuple[float, float]:
    """Calibration error and log-loss of at least one image."""
    error = reliability(logits_NK, logits_NK.argmax(1) == label_N).ece
    assert error is not None  # there is an image
    return error, float(-log_softmax(logits_NK)[np.arange(len(label_N)), label_N].mean())


def best_temperature(logits_NK: NDArray[np.generic], label_N: NDArray[np.int64]) -> float:
    """Temperature with the least negative log-likelihood, which is convex in its inverse.

    Where every answer is right, none has it: 1 is returned, not the end of the search.
    """
    if (logits_NK.argmax(1) == label_N).all():
        return 1.0
    wide_NK = logits_NK.astype(np.float64)
    asked_N = wide_NK[np.arange(len(label_N)), label_N]
    low, high = 1 / MAX_TEMPERATURE, MAX_TEMPERATURE  # of the inverse, in which the loss is convex
    for _ in range(SEARCH_STEPS):
        inverse = math.sqrt(low * high)  # the middle of a scale from 1/20 to 20 is 1
        slope = (Confidence(1 / inverse).probabilities(wide_NK) * wide_NK).sum(1) - asked_N
        low, high = (low, inverse) if slope.mean() > 0 else (inverse, high)
    return 1 / math.sqrt(low * high)


def unknown_auroc(logits_NK: NDArray[np.generic], label_N: NDArray[np.int64]) -> float | None:
    """Mean area under the curve of telling a left-out class from the others by confidence.

    Returns:
        None with fewer than three classes, for what is left would be one answer; or where all
        images are of one class.
    """
    asked = np.unique(label_N)
    if logits_NK.shape[1] < 3 or len(asked) < 2:
        return None
    areas = []
    for left_out in asked[:MAX_LEFT_OUT]:
        rest_NK = np.delete(logits_NK, left_out, axis=1)
        confidence_N = Confidence().probabilities(rest_NK).max(1)
        unknown_N = label_N == left_out
        areas.append(_area(confidence_N[~unknown_N], confidence_N[unknown_N]))
    return float(np.mean(areas))


def _area(known_N: NDArray[np.float64], unknown_M: NDArray[np.float64]) -> float:
    """Probability that a known image is surer than an unknown one; ties count half."""
    ordered_M = np.sort(unknown_M)
    below, up_to = (np.searchsorted(ordered_M, known_N, side) for side in ("left", "right"))
    return float((below + up_to).mean() / 2 / len(unknown_M))


NUM_BINS = 10  # Bins of equal width from 0 to 1, as in Guo et al., "On Calibration", ICML 2017


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
) -> Reliability:
    """Compare confidence with the share of right answers, bin by bin.

    Args:
        logits_NK: as the model gives them; images without finite logits are left out.
        right_N: which answers are right.
        temperature: the logits are divided by it.
    """
    finite_N = np.isfinite(logits_NK).all(1)
    scaled_NK = logits_NK[finite_N].astype(np.float64) / temperature
    right_N = right_N[finite_N]
    confidence_N = np.exp(log_softmax(scaled_NK)).max(1) if len(scaled_NK) else np.zeros(0)
    bin_N = np.minimum((confidence_N * NUM_BINS).astype(int), NUM_BINS - 1)  # 1.0 is in the last
    bins: list[Bin] = []
    error = 0.0
    for number in range(NUM_BINS):
        inside_N = bin_N == number
        if not inside_N.any():
            bins.append((0, None, None))
            continue
        confidence, share = confidence_N[inside_N].mean(), right_N[inside_N].mean()
        bins.append((int(inside_N.sum()), float(confidence), float(share)))
        error += inside_N.mean() * abs(confidence - share)
    return Reliability(temperature, float(error) if len(right_N) else None, tuple(bins))
