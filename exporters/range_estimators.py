"""From the values of a tensor to the range that eight bits should cover.

Histograms grow by doubling their range, so one pass over the images is enough; odd and even images
are counted apart, and the ranges of the two halves tell whether more images would change anything.

Shape suffixes: C channels.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dfkd_edge.artifacts import Floats
from dfkd_edge.config.settings import ExportConfig

MAX_SAMPLES = 16_384
"""Values of a tensor that one image adds to the histogram, evenly drawn; extremes are exact."""
NUM_BINS = 8_192  # Over (-limit, limit); zero is a bin border
NUM_STEPS = 255  # Between the ends of a range of eight bits
SHARES = np.linspace(1.0, 0.1, 91)  # Of the range that was seen, which `mse` tries
NUM_LEVELS = 128  # Magnitudes that INT8 tells apart, for `entropy`


class Histogram:
    """Counts of values between -limit and limit; the limit doubles when a value lies outside."""

    def __init__(self) -> None:
        self.count: NDArray[np.float64] = np.zeros(NUM_BINS)
        self.limit = 0.0  # The first values set it
        self.lowest, self.highest = np.inf, -np.inf

    def add(self, value: Floats, turn: int) -> None:
        """Count values; of large tensors MAX_SAMPLES, evenly drawn from a start set by `turn`."""
        flat = value.reshape(-1)
        low, high = float(flat.min()), float(flat.max())
        self.lowest, self.highest = min(self.lowest, low), max(self.highest, high)
        magnitude = max(-low, high)
        if self.limit == 0:
            self.limit = max(magnitude * 1.25, 1e-6)  # some room, so that it seldom doubles
        while magnitude > self.limit:
            inner: NDArray[np.float64] = self.count[0::2] + self.count[1::2]
            self.count = np.zeros(NUM_BINS)
            self.count[NUM_BINS // 4 : NUM_BINS - NUM_BINS // 4] = inner
            self.limit *= 2
        step = max(1, flat.size // MAX_SAMPLES) | 1  # odd: never in step with rows of even width
        sample = flat[turn % step :: step]
        scaled = (sample + np.float32(self.limit)) * np.float32(NUM_BINS / (2 * self.limit))
        index = np.minimum(scaled.astype(np.int32), NUM_BINS - 1)
        self.count += np.bincount(index, minlength=NUM_BINS)

    def merged(self, other: "Histogram") -> "Histogram":
        """Add two histograms of one tensor; bins of different width are matched by their middle."""
        both = Histogram()
        both.lowest = min(self.lowest, other.lowest)
        both.highest = max(self.highest, other.highest)
        both.limit = max(self.limit, other.limit)
        for part in (self, other):
            scaled = (part.middles() + both.limit) * (NUM_BINS / (2 * both.limit))
            index = np.minimum(scaled.astype(np.int64), NUM_BINS - 1)
            both.count += np.bincount(index, weights=part.count, minlength=NUM_BINS)
        return both

    def middles(self) -> NDArray[np.float64]:
        """Middle of each bin."""
        width = 2 * self.limit / NUM_BINS
        middle: NDArray[np.float64] = (np.arange(NUM_BINS, dtype=np.float64) + 0.5) * width
        return middle - self.limit

    def magnitudes(self) -> NDArray[np.float64]:
        """Counts of absolute values, [NUM_BINS / 2], from 0 to the limit."""
        half = NUM_BINS // 2
        folded: NDArray[np.float64] = self.count[half:] + self.count[:half][::-1]
        return folded


class RangeObserver:
    """Gathers histograms of many tensors, image by image."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.halves = tuple({name: Histogram() for name in names} for _ in range(2))
        self._sums: dict[str, Floats] = {}
        self._count = 0

    def add(self, values: Sequence[Floats]) -> None:
        """Count one image's tensors [1, C, ...], in the order of `names`."""
        half = self.halves[self._count % 2]
        self._count += 1
        for name, value in zip(self.names, values, strict=True):
            half[name].add(value, self._count)
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


def clip_range(histogram: Histogram, config: ExportConfig) -> tuple[float, float]:
    """Choose the range by the configured method; it never leaves what was seen."""
    if config.calibration_method == "percentile":
        low, high = _percentile(histogram, config.percentile)
    elif config.calibration_method == "entropy":
        reach = _entropy(histogram)
        low, high = -reach, reach
    elif config.calibration_method == "mse":
        low, high = _least_error(histogram)
    else:
        low, high = histogram.lowest, histogram.highest
    # zero must be exact: padding is zero
    return min(max(low, histogram.lowest), 0.0), max(min(high, histogram.highest), 0.0)


def _least_error(histogram: Histogram) -> tuple[float, float]:
    """Range with the least squared error of eight bits: clipping weighed against rounding."""
    middle, total = histogram.middles(), histogram.count.sum()
    best, least = (histogram.lowest, histogram.highest), np.inf
    for share in SHARES:
        low, high = histogram.lowest * share, histogram.highest * share
        clipped = float(np.square(middle - np.clip(middle, low, high)) @ histogram.count / total)
        rounded = ((high - low) / NUM_STEPS) ** 2 / 12  # variance of a uniform rounding error
        if clipped + rounded < least:
            best, least = (low, high), clipped + rounded
    return best


def _percentile(histogram: Histogram, percent: float) -> tuple[float, float]:
    share = np.cumsum(histogram.count) / histogram.count.sum()
    tail = (1 - percent / 100) / 2
    middle = histogram.middles()
    low = int(np.searchsorted(share, tail))
    high = min(int(np.searchsorted(share, 1 - tail)), NUM_BINS - 1)
    return float(middle[low]), float(middle[high])


def _entropy(histogram: Histogram) -> float:
    """Magnitude whose INT8 distribution is nearest in KL (Migacz 2017, 8-bit inference)."""
    count = histogram.magnitudes()
    count[0] = count[1]  # ReLU's zeros are exact in any scale: they say nothing
    width = histogram.limit / len(count)
    stops = np.unique(np.linspace(NUM_LEVELS, len(count), 96).astype(int))
    scores = [_kl_when_clipped(count, int(stop)) for stop in stops]
    return float(stops[int(np.argmin(scores))] * width)


def _kl_when_clipped(count: NDArray[np.float64], stop: int) -> float:
    kept = count[:stop]
    reference = kept.copy()
    reference[-1] += count[stop:].sum()
    level = np.arange(stop) * NUM_LEVELS // stop
    occupied = kept > 0
    total = np.bincount(level, weights=kept, minlength=NUM_LEVELS)
    bins = np.bincount(level, weights=occupied.astype(float), minlength=NUM_LEVELS)
    spread = np.where(occupied, (total / np.maximum(bins, 1))[level], 0.0)
    p, q = reference / reference.sum(), spread / max(spread.sum(), 1e-12)
    there = p > 0
    return float((p[there] * np.log(p[there] / np.maximum(q[there], 1e-12))).sum())
