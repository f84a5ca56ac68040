import dataclasses

import pytest

from dfkd_edge.results.certainty import certainty_of, difference, gain_interval
from dfkd_edge.results.ladder import Ladder, RightAnswers
from dfkd_edge.runtime.share_interval import TOO_FEW, exact_interval, mean_interval
from tests.fixtures.ladders import figures, ladder, rung


def measured(share: float, num: int, num_domains: int = 1, num_pictures: int = 0) -> Ladder:
    part = figures(share, num, num_pictures or None)
    domains = {f"domain {number}": part for number in range(num_domains)}
    return ladder(rung("onnx-int8", domains))


@pytest.mark.parametrize(
    ("right", "num", "low", "high"),
    [(0, 10, 0.0, 0.308), (7, 10, 0.348, 0.933), (3, 3, 0.292, 1), (900, 1000, 0.880, 0.918)],
)
def test_the_interval_of_a_share_is_that_of_clopper_and_pearson(
    right: int, num: int, low: float, high: float
) -> None:
    assert exact_interval(right / num, num) == pytest.approx((low, high), abs=0.001)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_an_interval_holds_its_share_and_narrows_with_more_pictures(share: float) -> None:
    widths = []
    for num in (3, 30, 300):
        low, high = exact_interval(share, num)
        assert 0 <= low <= share <= high <= 1
        widths.append(high - low)
    assert widths[0] > widths[1] > widths[2] > 0


def test_three_pictures_all_right_are_not_certain_and_three_thousand_are() -> None:
    few, many = certainty_of(measured(1, 3)), certainty_of(measured(0.9, 3_000))
    assert (few.low < 0.5, few.high, few.is_too_wide, many.is_too_wide) == (True, 1, True, False)
    assert "on 3 labelled pictures: too few pictures to tell within 10 points" in few.sentence()
    assert TOO_FEW not in many.sentence()
    agreed = certainty_of(dataclasses.replace(measured(1, 3), metric="agreement"))  # No accuracy
    assert agreed.sentence().endswith("95% interval 29.2% to 100.0%, on 3 clean surrogate images")


def test_more_domains_make_the_mean_surer() -> None:
    one, four = certainty_of(measured(0.7, 100)), certainty_of(measured(0.7, 100, 4))
    assert four.high - four.low == pytest.approx((one.high - one.low) / 2)
    assert four.num_images == 400
    assert mean_interval([(0.5, 0.4, 0.6)]) == pytest.approx((0.5, 0.4, 0.6))


def test_views_and_corruptions_are_told_from_the_images_that_they_show() -> None:
    views = dataclasses.replace(measured(0.7, 1_000, 5, num_pictures=200), metric="agreement")
    found = certainty_of(views)
    assert (found.num_images, found.num_pictures, views.unit) == (5_000, 200, "view")
    assert found.images == "5,000 clean and corrupted views of 200 surrogate images"
    assert measured(0.7, 10).unit == "picture"


def test_the_gain_of_separate_pictures_is_as_wide_as_both_intervals() -> None:
    before, after = certainty_of(measured(0.6, 500)), certainty_of(measured(0.7, 500))
    gain, low, high = difference(after, before)
    assert gain == pytest.approx(0.1)
    assert 0.035 < low < gain < high < 0.165


def test_the_gain_on_the_same_images_counts_those_that_changed() -> None:
    before, after = measured(0.6, 480), measured(0.65, 480)
    old, new = (
        RightAnswers(shown="these", domains={"domain 0": f"{(1 << num) - 1:0120x}"})
        for num in (288, 312)
    )
    assert new.changes(old, "domain 0") == (0, 24)
    ours, twin = dataclasses.replace(after, right=new), dataclasses.replace(before, right=old)
    gain, low, high = gain_interval(ours, twin)
    assert gain == pytest.approx(0.05)
    assert 0.03 < low < gain < high < 0.08
    others = dataclasses.replace(twin, right=dataclasses.replace(old, shown="others"))
    apart = gain_interval(ours, others)
    assert apart == difference(certainty_of(ours), certainty_of(twin))
    assert apart[1] < 0 < low
