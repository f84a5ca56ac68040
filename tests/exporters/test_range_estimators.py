import numpy as np
import pytest
from dfkd_edge.exporters import range_estimators
from dfkd_edge.exporters.range_estimators import Histogram, RangeObserver, clip_range

from dfkd_edge.config.settings import ExportConfig


@pytest.fixture(autouse=True)
def _every_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(range_estimators, "MAX_SAMPLES", 10**6)


def test_a_histogram_that_grew_equals_one_that_knew_the_range() -> None:
    value = np.random.default_rng(0).normal(size=(4, 4000)).astype(np.float32)
    value *= np.array([[0.1], [1], [3], [9]], np.float32)
    grown = Histogram()
    for row in value:
        grown.add(row, 0)
    assert grown.count.sum() == value.size
    assert grown.highest == value.max()
    share = (np.abs(grown.middles()) < 1) @ grown.count / value.size
    assert share == pytest.approx(np.mean(np.abs(value) < 1), abs=0.002)


def test_ranges_hold_zero_and_lie_within_what_was_seen() -> None:
    value = np.abs(np.random.default_rng(0).normal(size=20_000)).astype(np.float32)
    value[0] = 100.0
    histogram = Histogram()
    histogram.add(value, 0)
    assert clip_range(histogram, ExportConfig(calibration_method="minmax")) == (0, 100)
    for method in ("mse", "percentile", "entropy"):  # one in 20,000 is worth less than the rest
        config = ExportConfig(calibration_method=method, percentile=99.9)
        low, high = clip_range(histogram, config)
        assert low == 0
        assert 1.5 < high < 100, method


def test_halves_agree_when_the_images_suffice() -> None:
    generator = np.random.default_rng(0)
    few, many = RangeObserver(["x"]), RangeObserver(["x"])
    values = generator.normal(size=(400, 1, 3, 8, 8)).astype(np.float32)
    for observer, images in ((few, values[:8]), (many, values)):
        for value in images:
            observer.add([value])
    config = ExportConfig(calibration_method="percentile", percentile=99.0)
    assert many.half_difference(config) < few.half_difference(config)
    assert many.channel_means()["x"].shape == (3,)
