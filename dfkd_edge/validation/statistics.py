"""Is a difference real? Bootstrap intervals, a paired sign-flip test, divergence, collapse.

Two rungs see the same images, so every comparison is paired: only the images on which they differ
carry evidence. Several images may be views of one picture and then err together, so pictures are
resampled and flipped whole, and a drop's interval and its test agree on zero. Where few pictures
leave the bootstrap nothing to resample, an interval is as wide as that of so many independent
pictures.

Shape suffixes: N images, P pictures, K classes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfkd_edge.runtime.share_interval import DEVIATIONS, mean_interval, wilson_interval

NUM_RESAMPLES = 2_000
CONFIDENCE = 0.95
SIGNIFICANCE = 0.05  # A p-value at or above this is called noise
WEIGHT_STEPS = 60
"""Domains of unequal size weigh in whole steps of the largest weight, for the test counts exactly:
so many, or as many as give each domain one."""
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95% interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PairedDrop:
    """What is lost from one rung to another on the same images."""

    drop: Interval  # Share of images right before minus share right after; positive is a loss
    num_lost: int  # Right before, wrong after
    num_won: int  # Wrong before, right after
    num_images: int  # Images shown; several may be views of one picture
    num_pictures: int  # Independent pictures among them
    p_value: float
    """Two-sided sign-flip test over pictures; McNemar's where each picture is shown once."""

    @property
    def is_within_noise(self) -> bool:
        """Whether chance alone explains the difference."""
        return self.p_value >= SIGNIFICANCE


def bootstrap_interval(
    value_N: NDArray[np.generic],
    picture_N: Integers | None = None,
    domain_N: Integers | None = None,
) -> Interval:
    """Mean over domains of a value an image has, with the interval of the bootstrap.

    Pictures are resampled with all their views, among pictures that were shown equally often in
    each domain. A mean depends on how often each distinct sum of a picture was drawn and on nothing
    else, so the counts are drawn from their multinomial distribution, without P draws a resample.

    Args:
        value_N: few distinct values: right or wrong, or the difference of two such.
        picture_N: the picture that each image is a view of; None where each is its own.
        domain_N: the domain of each image; None where there is one.

    Raises:
        ValueError: there is no image.
    """
    if not len(value_N):
        raise ValueError("no image to average over")
    picture_N, domain_N = _grouped(len(value_N), picture_N, domain_N)
    images_D = np.bincount(domain_N)
    weighted_N = value_N.astype(np.float64) / (images_D[domain_N] * len(images_D))
    sum_P = np.bincount(picture_N, weighted_N)
    shown_PD = np.zeros((len(sum_P), len(images_D)), np.int64)
    np.add.at(shown_PD, (picture_N, domain_N), 1)
    # NumPy 2.0 alone returns the inverse along an axis as [P, 1]
    stratum_P = np.unique(shown_PD, axis=0, return_inverse=True)[1].reshape(-1)
    rng, means = np.random.default_rng(0), np.zeros(NUM_RESAMPLES)  # equal images, equal interval
    for stratum in range(stratum_P.max() + 1):
        distinct, count = np.unique(sum_P[stratum_P == stratum], return_counts=True)
        means += rng.multinomial(count.sum(), count / count.sum(), size=NUM_RESAMPLES) @ distinct
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])  # percentile
    mean = (np.bincount(domain_N, value_N) / images_D).mean()
    return Interval(float(mean), float(low), float(high))


def share_interval(right_N: NDArray[np.bool_], picture_N: Integers | None = None) -> Interval:
    """Share of images right, with an interval that a handful of pictures cannot make firm.

    Pictures shown once are independent: Wilson's interval says all, as check.pyz has it. Several
    views of a picture err together, which only resampling shows.
    """
    num_pictures = len(right_N) if picture_N is None else len(np.unique(picture_N))
    share = float(right_N.mean())
    low, high = wilson_interval(share, num_pictures)
    if num_pictures == len(right_N):
        return Interval(share, low, high)
    found = bootstrap_interval(right_N, picture_N)
    return Interval(found.mean, min(found.low, low), max(found.high, high))


def _independent_drop(lost: float, won: float, num_pictures: int) -> tuple[float, float, float]:
    """Lost minus won of independent pictures, with the ends of the score interval (Tango 1998)."""
    drop = lost - won

    def is_possible(true_drop: float) -> bool:
        free = true_drop * (1 - true_drop)
        linear = (2 - drop) * true_drop - lost - won
        # the likeliest share that is won if the true drop is this; rounding may leave a root of < 0
        won_then = (math.sqrt(max(0.0, linear**2 + 8 * won * free)) - linear) / 4
        variance = (2 * won_then + free) / num_pictures
        return (drop - true_drop) ** 2 <= DEVIATIONS**2 * variance

    def end(outermost: float) -> float:
        possible, impossible = drop, outermost
        for _ in range(50):  # halvings: the end is exact to 1e-15
            middle = (possible + impossible) / 2
            if is_possible(middle):
                possible = middle
            else:
                impossible = middle
        return possible

    return drop, end(-1), end(1)


def _grouped(
    num_images: int, picture_N: Integers | None, domain_N: Integers | None
) -> tuple[Integers, Integers]:
    """Number pictures and domains from 0."""
    pictures = np.arange(num_images) if picture_N is None else picture_N
    domains = np.zeros(num_images, np.int64) if domain_N is None else domain_N
    return np.unique(pictures, return_inverse=True)[1], np.unique(domains, return_inverse=True)[1]


def sign_flip_p_value(change_P: Integers) -> float:
    """Two-sided p-value of a sum of paired changes when the sign of each is a fair coin.

    Exact: the distribution of the sum is the inverse Fourier transform of a product of cosines.
    With changes of -1 and 1 alone it is McNemar's exact test.
    """
    magnitude, count = np.unique(np.abs(change_P[change_P != 0]), return_counts=True)
    if not len(magnitude):
        return 1.0
    unit = np.gcd.reduce(magnitude)  # a shorter transform, equal signs and order
    magnitude, total = magnitude // unit, abs(int(change_P.sum())) // unit
    reach = int(magnitude @ count)
    angle = 2 * np.pi * np.arange(2 * reach + 1) / (2 * reach + 1)
    wave = np.ones(2 * reach + 1)  # the sum takes no value beyond -reach and reach
    for size, number in zip(magnitude, count, strict=True):
        wave *= np.cos(size * angle) ** number
    probability = np.fft.fft(wave).real / (2 * reach + 1)
    return float(np.clip(2 * probability[total : reach + 1].sum(), 0.0, 1.0))  # 0 is in both tails


def paired_drop(
    before_N: NDArray[np.bool_],
    after_N: NDArray[np.bool_],
    picture_N: Integers | None = None,
    domain_N: Integers | None = None,
) -> PairedDrop:
    """Compare what two rungs got right on the same images: the mean over domains.

    Interval and test take pictures as independent, not their views. The interval is at least as
    wide as that of pictures shown once, so it may hold zero where the test, which sees how views
    of a picture change together, finds a difference: the test, which is exact, decides on zero.
    """
    lost_N = before_N.astype(np.int64) - after_N
    found = bootstrap_interval(lost_N, picture_N, domain_N)
    picture_N, domain_N = _grouped(len(lost_N), picture_N, domain_N)
    parts, num_shown = [], 0
    for domain in range(domain_N.max() + 1):
        part_N, pictures = lost_N[domain_N == domain], np.unique(picture_N[domain_N == domain])
        shares = float((part_N > 0).mean()), float((part_N < 0).mean())
        parts.append(_independent_drop(*shares, len(pictures)))
        num_shown += len(pictures)
    num_pictures = int(picture_N.max()) + 1
    _, low, high = mean_interval(parts, is_shared=num_shown > num_pictures)
    low, high = max(-1.0, min(found.low, low)), min(1.0, max(found.high, high))
    images_D = np.bincount(domain_N)
    steps = max(WEIGHT_STEPS, images_D.max() / images_D.min())
    weight_D = np.rint(steps * images_D.min() / images_D)
    # bincount sums doubles, and the test counts in integers
    change_P = np.rint(np.bincount(picture_N, lost_N * weight_D[domain_N])).astype(np.int64)
    lost, won = int((lost_N > 0).sum()), int((lost_N < 0).sum())
    p_value = sign_flip_p_value(change_P)
    if p_value >= SIGNIFICANCE:
        low, high = min(low, 0.0), max(high, 0.0)  # the exact test decides on zero
    elif found.mean > 0:
        low = max(low, 0.0)
    else:
        high = min(high, 0.0)
    return PairedDrop(
        Interval(found.mean, low, high), lost, won, len(lost_N), num_pictures, p_value
    )


def log_softmax(logits_NK: NDArray[np.generic]) -> NDArray[np.float64]:
    """Log-probabilities of logits, in double precision."""
    shifted_NK = logits_NK.astype(np.float64)
    shifted_NK = shifted_NK - shifted_NK.max(1, keepdims=True)  # exp never overflows
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


COLLAPSE = 0.5
"""A teacher has collapsed where the entropy of its answers is below this share of that on clean
images (ours). Where classes come equally often, one of two then has 89% of the answers, one of
seven 77%, one of a thousand 60%."""


def answer_entropy(answer_N: Integers) -> float:
    """Entropy of the distribution of answers, in nats; 0 where there is one answer."""
    share = np.unique(answer_N, return_counts=True)[1] / len(answer_N)
    return float(-(share * np.log(share)).sum())


def find_collapse(
    clean_N: Integers, domains: Mapping[str, Integers]
) -> dict[str, tuple[int, float]]:
    """Find the domains in which the answers are far less varied than on clean images.

    Returns:
        Domain -> its most frequent answer, and the share of that.
    """
    least = COLLAPSE * answer_entropy(clean_N)
    found = {}
    for name, answer_N in domains.items():
        if answer_entropy(answer_N) < least:
            answers, counts = np.unique(answer_N, return_counts=True)
            most = counts.argmax()
            found[name] = int(answers[most]), float(counts[most] / len(answer_N))
    return found
