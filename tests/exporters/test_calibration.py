from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from dfkd_edge.exporters.calibration import (
    RangeObserver,
    image_hash,
    select_calibration,
)
from dfkd_edge.exporters.range_estimators import Histogram, clip_range

from dfkd_edge.artifacts import SurrogateSet
from dfkd_edge.config.settings import ExportConfig
from dfkd_edge.errors import ConfigError
from tests.fixtures.typed import surrogate_summary


@pytest.fixture
def surrogates() -> SurrogateSet:
    generator = np.random.default_rng(0)
    num = 1200
    return SurrogateSet(
        generator.integers(0, 256, (num, 8, 8, 3), dtype=np.uint8),
        np.sort(generator.integers(0, 4, num)),
        generator.integers(0, 5, num),
        np.full(num, -1),
        np.zeros((num, 4), np.float32),
        np.arange(num) % 10 == 0,
        surrogate_summary(),
    )


def test_images_are_balanced_by_class_and_style_and_never_held_out(
    surrogates: SurrogateSet,
) -> None:
    chosen = select_calibration(surrogates, 500, 8, 3)
    counts = np.bincount(chosen.class_index)
    assert counts.max() - counts.min() <= 1
    half = np.bincount(chosen.class_index[:250])
    assert half.max() - half.min() <= 1
    kept_out = {image.tobytes() for image in surrogates.images[surrogates.is_heldout]}
    assert not kept_out & {image.tobytes() for image in chosen.images}
    style_of = {
        image.tobytes(): s
        for image, s in zip(surrogates.images, surrogates.style_index, strict=True)
    }
    styles = np.bincount([style_of[image.tobytes()] for image in chosen.images])
    assert styles.min() > 0.8 * styles.mean()
    assert "4 classes in 5 styles" in chosen.description


def test_equal_seeds_choose_equal_images_and_the_hash_says_so(surrogates: SurrogateSet) -> None:
    first, again, other = (select_calibration(surrogates, 500, 16, s) for s in (1, 1, 2))
    assert first.images.shape == (500, 16, 16, 3)
    assert first.sha256 == again.sha256 == image_hash(first.images) != other.sha256


def test_never_silently_fewer_images(surrogates: SurrogateSet) -> None:
    with pytest.raises(ConfigError, match="1080 surrogate images to calibrate with, 1100 wanted"):
        select_calibration(surrogates, 1100, 8, 0)


def test_a_histogram_that_grew_equals_one_that_knew_the_range() -> None:
    value = np.random.default_rng(0).normal(size=(4, 4000)).astype(np.float32)
    grown = Histogram()
    for row, factor in zip(value, (0.1, 1, 3, 9), strict=True):
        grown.add(row * np.float32(factor), 10**6, 0)
    assert grown.count.sum() == value.size
    assert grown.highest == pytest.approx(float((value * [[0.1], [1], [3], [9]]).max()))
    share = (np.abs(grown.middles()) < 1) @ grown.count / value.size
    exact = np.mean(np.abs(value * [[0.1], [1], [3], [9]]) < 1)
    assert share == pytest.approx(exact, abs=0.002)


@pytest.mark.parametrize("method", ["mse", "percentile", "entropy", "minmax"])
def test_ranges_hold_zero_and_lie_within_what_was_seen(
    method: Literal["mse", "percentile", "entropy", "minmax"],
) -> None:
    value = np.abs(np.random.default_rng(0).normal(size=20_000)).astype(np.float32)
    value[0] = 100.0
    histogram = Histogram()
    histogram.add(value, 10**6, 0)
    config = ExportConfig(calibration_method=method, percentile=99.9)
    low, high = clip_range(histogram, config)
    assert low == 0.0
    if method == "minmax":
        assert high == 100.0
    else:  # one value in 20 000 is worth less to each of them than the rest
        assert 1.5 < high < 100


def test_halves_agree_when_the_images_suffice() -> None:
    generator = np.random.default_rng(0)
    few, many = RangeObserver(["x"]), RangeObserver(["x"])
    for number in range(400):
        value = generator.normal(size=(1, 3, 8, 8)).astype(np.float32)
        many.add([value])
        if number < 8:
            few.add([value])
    config = ExportConfig(calibration_method="percentile", percentile=99.0)
    assert many.half_difference(config) < few.half_difference(config)
    assert many.channel_means()["x"].shape == (3,)
