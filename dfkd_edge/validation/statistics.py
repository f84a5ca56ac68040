"""Is a difference real? Intervals that hold, a paired sign-flip test, divergence, collapse.

Two rungs see the same images, so every comparison is paired: only the images on which they differ
carry evidence. Several images may be views of one picture and then err together: they count as so
many pictures as would be as sure, pictures are flipped whole, and a drop's interval and its test
agree on zero. Where few pictures show nothing of it, an interval still leaves room for what so many
cannot exclude. tests/benchmarks/interval_coverage.py measures how often each holds the truth.

Shape suffixes: N images, P pictures, K classes.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfkd_edge.runtime.share_interval import (
    DEVIATIONS,
    TAIL,
    beta_quantile,
    drop_interval,
    exact_interval,
    mean_interval,
)

TINY = 1e-15  # A variance below it is rounding
SIGNIFICANCE = 0.05  # A p-value at or above this is called noise
WEIGHT_STEPS = 60
"""Domains of unequal size weigh in whole steps of the largest weight, for the test counts exactly:
so many, or as many as give each domain one."""
Integers = NDArray[np.int64]
Values = NDArray[Any]


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


def share_interval(
    right_N: NDArray[np.bool_],
    picture_N: Integers | None = None,
    domain_N: Integers | None = None,
) -> Interval:
    """Share of images right, the mean over domains, however few or how often shown they are.

    Pictures of one domain shown once are independent: their exact interval says all, as check.pyz
    has it.
    """
    return _over_domains(_shared_share, right_N, *_grouped(len(right_N), picture_N, domain_N))


def _shared_share(right_N: Values, picture_N: Integers, domain_N: Integers) -> Interval:
    share, num_pictures = _mean_over(right_N, domain_N), int(picture_N.max()) + 1
    if num_pictures == len(right_N):
        return Interval(share, *exact_interval(share, num_pictures))
    num = _effective_num(right_N, picture_N, domain_N, share * (1 - share))
    low, high = exact_interval(share, num)
    unseen = exact_interval(0.0, num_pictures)[1]
    return Interval(share, max(0.0, min(low, share - unseen)), min(1.0, max(high, share + unseen)))


def _shared_drop(change_N: Values, picture_N: Integers, domain_N: Integers) -> Interval:
    """Mean of what each image lost, 1, or won, -1."""
    lost, won = (_mean_over(sign * change_N > 0, domain_N) for sign in (1, -1))
    num_pictures = int(picture_N.max()) + 1
    if num_pictures == len(change_N):
        return Interval(*drop_interval(lost, won, num_pictures))
    spread = lost + won - (lost - won) ** 2
    num = _effective_num(change_N, picture_N, domain_N, spread)
    drop, low, high = drop_interval(lost, won, num)
    unseen = drop_interval(0, 0, num_pictures)[2]  # whole pictures of which none was shown
    return Interval(drop, max(-1.0, min(low, drop - unseen)), min(1.0, max(high, drop + unseen)))


def _over_domains(
    of_shared: Callable[[Values, Integers, Integers], Interval],
    value_N: Values,
    picture_N: Integers,
    domain_N: Integers,
) -> Interval:
    """Average over domains: those of separate pictures are independent; those that show the same
    ones err together, as views do.
    """
    num_shown = np.unique(np.stack([domain_N, picture_N]), axis=1).shape[1]
    if domain_N.max() == 0 or num_shown > picture_N.max() + 1:
        return of_shared(value_N, picture_N, domain_N)
    parts = []
    for domain in range(int(domain_N.max()) + 1):
        here_N = domain_N == domain
        part = of_shared(value_N[here_N], *_grouped(int(here_N.sum()), picture_N[here_N], None))
        parts.append((part.mean, part.low, part.high))
    return Interval(*mean_interval(parts))


def _mean_over(value_N: Values, domain_N: Integers) -> float:
    return float((np.bincount(domain_N, value_N) / np.bincount(domain_N)).mean())


def _effective_num(
    value_N: Values, picture_N: Integers, domain_N: Integers, spread: float
) -> float:
    """How many independent pictures would tell as much as these views (Korn and Graubard 1998).

    Args:
        value_N: of each image.
        picture_N: the picture that it is a view of.
        domain_N: its domain.
        spread: variance of the value of an image.
    """
    images_D = np.bincount(domain_N)
    mean_D = np.bincount(domain_N, value_N) / images_D
    offset_N = (value_N - mean_D[domain_N]) / (images_D[domain_N] * len(images_D))
    offset_P = np.bincount(picture_N, offset_N)
    num_pictures = len(offset_P)
    variance = float(np.square(offset_P).sum()) * num_pictures / max(1, num_pictures - 1)
    if variance < TINY:  # all views are alike: nothing tells more of them from one
        return num_pictures
    # the variance is itself known from few pictures alone
    unsure = (DEVIATIONS / _student_deviations(num_pictures - 1)) ** 2 if num_pictures > 1 else 0
    return min(max(spread / variance * unsure, 1.0), len(value_N))


def _student_deviations(degrees: int) -> float:
    """Half the width of a 95% interval by Student's t, in standard deviations."""
    share = beta_quantile(2 * TAIL, degrees / 2, 0.5)
    return math.sqrt(degrees * (1 - share) / share)


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

    Interval and test take pictures as independent, not their views. Where one holds zero and the
    other does not, the test decides, which is exact.
    """
    lost_N = before_N.astype(np.int64) - after_N
    picture_N, domain_N = _grouped(len(lost_N), picture_N, domain_N)
    found = _over_domains(_shared_drop, lost_N, picture_N, domain_N)
    low, high, num_pictures = found.low, found.high, int(picture_N.max()) + 1
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
