"""Calibration: which images, and which range each activation takes on them.

Histograms grow by doubling their range, so one pass over the images is enough; odd and even images
are counted apart, and the ranges of the two halves tell whether more images would change anything.

Shape suffixes: N images, S side, C = 3 channels (RGB).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfkd_edge.artifacts import Bytes, Floats, Ints, SurrogateSet
from dfkd_edge.config.settings import ExportConfig
from dfkd_edge.errors import ConfigError
from dfkd_edge.runtime.preprocess import resized_images
from dfkd_edge.target_profiles.profile import TargetProfile

from .range_estimators import Histogram, clip_range

MAX_SAMPLES = 16_384
"""Values of a tensor that one image adds to the histogram, evenly drawn; extremes are exact."""


@dataclass(frozen=True, slots=True)
class CalibrationImages:
    """Images that stand for what the device will see."""

    images: Bytes
    """[N, S, S, C], RGB, as the model takes them."""
    class_index: Ints
    """[N]"""
    description: str
    """Where they come from and how they were chosen, for the manifest."""
    sha256: str
    """Over shape and pixels."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Ranges of activations, and how far they can be trusted."""

    ranges: Mapping[str, tuple[float, float]]
    """Tensor name to (lowest, highest) value worth telling apart."""
    channel_means: Mapping[str, Floats]
    """Tensor name to the mean of each channel, which bias correction needs."""
    method: str
    num_images: int
    sha256: str
    half_difference: float
    """Largest difference of a range between two disjoint halves of the images, relative."""
    growth: Mapping[str, float]
    """Largest relative change of a range from the first N images to all of them, by N."""

    def summary(self) -> dict[str, Any]:
        """Everything but the ranges, for the manifest."""
        return {
            "method": self.method,
            "num_images": self.num_images,
            "sha256": self.sha256,
            "num_tensors": len(self.ranges),
            "half_difference": round(self.half_difference, 5),
            "growth": {count: round(change, 5) for count, change in self.growth.items()},
        }


def image_hash(image_NSSC: Bytes) -> str:
    """SHA-256 over shape and pixels, in hex."""
    digest = hashlib.sha256(repr(image_NSSC.shape).encode())
    digest.update(np.ascontiguousarray(image_NSSC).tobytes())
    return digest.hexdigest()


def select_calibration(
    surrogates: SurrogateSet, num: int, side_px: int, seed: int
) -> CalibrationImages:
    """Draw surrogate images, balanced by class, and by style within each class.

    Held-out images are never drawn: the ladder measures on them.

    Args:
        surrogates: what the student learnt from.
        num: how many images; they come interleaved, so that each half is balanced too.
        side_px: the student's side; images of another size are resized as pictures are.
        seed: of the draw.

    Raises:
        ConfigError: fewer images are there than were asked for.
    """
    pool = np.flatnonzero(~surrogates.is_heldout)
    if len(pool) < num:
        raise ConfigError(
            f"{len(pool)} surrogate images to calibrate with, {num} wanted",
            where="--calib-size",
            hint="distill with more synthesis.num_images",
        )
    chosen = _balanced(pool, surrogates.class_index, surrogates.style_index, num, seed)
    images = resized_images(surrogates.images[chosen], side_px)
    num_classes = len(np.unique(surrogates.class_index[chosen]))
    num_styles = len(np.unique(surrogates.style_index[chosen]))
    return CalibrationImages(
        images,
        surrogates.class_index[chosen],
        f"{num} surrogate images of {num_classes} classes in {num_styles} styles, seed {seed}",
        image_hash(images),
    )


def _balanced(
    pool: NDArray[np.intp], class_index: Ints, style_index: Ints, num: int, seed: int
) -> NDArray[np.intp]:
    """Deal classes round-robin; within a class, styles round-robin."""
    generator = np.random.default_rng(seed)
    hands = []
    for label in np.unique(class_index[pool]):
        rows = generator.permutation(pool[class_index[pool] == label])
        turn = np.empty(len(rows), np.int64)
        for style in np.unique(style_index[rows]):
            of_style = np.flatnonzero(style_index[rows] == style)
            turn[of_style] = np.arange(len(of_style))
        hands.append(rows[np.argsort(turn, kind="stable")])
    dealt = [hand[i] for i in range(max(map(len, hands))) for hand in hands if i < len(hand)]
    return np.array(dealt[:num])


def check_calibration_size(images: Bytes, target: TargetProfile) -> None:
    """Refuse fewer images than the target needs.

    Raises:
        ConfigError: there are too few.
    """
    if len(images) < target.min_calibration_images:
        raise ConfigError(
            f"{len(images)} calibration images are too few for {target.name}",
            where="--calib-size",
            hint=f"{target.min_calibration_images} or more are needed",
        )


class RangeObserver:
    """Gathers histograms of many tensors, image by image."""

    def __init__(self, names: Sequence[str]) -> None:
        """Start empty histograms."""
        self.names = tuple(names)
        self.halves = tuple({name: Histogram() for name in names} for _ in range(2))
        self._sums: dict[str, Floats] = {}
        self._count = 0

    def add(self, values: Sequence[Floats]) -> None:
        """Count one image's tensors [1, C, ...], in the order of `names`."""
        half = self.halves[self._count % 2]
        self._count += 1
        for name, value in zip(self.names, values, strict=True):
            half[name].add(value, MAX_SAMPLES, self._count)
            mean = value.mean(axis=(0, *range(2, value.ndim)), dtype=np.float32)
            self._sums[name] = self._sums.get(name, np.float32(0)) + mean

    def channel_means(self) -> dict[str, Floats]:
        """Mean of each channel over all images so far."""
        return {name: total / np.float32(self._count) for name, total in self._sums.items()}

    def ranges(self, config: ExportConfig) -> dict[str, tuple[float, float]]:
        """Ranges over all images so far."""
        both = ((name, self.halves[0][name].merged(self.halves[1][name])) for name in self.names)
        return {name: clip_range(histogram, config) for name, histogram in both}

    def half_difference(self, config: ExportConfig) -> float:
        """Largest relative difference between the ranges of odd and of even images."""
        first, second = (
            {name: clip_range(half[name], config) for name in self.names} for half in self.halves
        )
        return largest_change(first, second)


def largest_change(
    before: Mapping[str, tuple[float, float]], after: Mapping[str, tuple[float, float]]
) -> float:
    """Largest change of a range's ends, relative to the range's width afterwards."""
    changes = [0.0]
    for name, (low, high) in after.items():
        width = max(high - low, 1e-12)
        changes.append(max(abs(before[name][0] - low), abs(before[name][1] - high)) / width)
    return max(changes)
