"""How sure a counted share is."""

import pytest

from dfkd_edge.runtime.share_interval import wilson_interval


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_an_interval_holds_its_share_and_narrows_with_more_pictures(share: float) -> None:
    widths = []
    for num in (3, 30, 300):
        low, high = wilson_interval(share, num)
        assert 0 <= low <= share <= high <= 1
        widths.append(high - low)
    assert widths[0] > widths[1] > widths[2] > 0


def test_the_ends_are_the_shares_that_a_normal_test_just_does_not_reject() -> None:
    share, num = 0.8, 50
    for end in wilson_interval(share, num):
        deviation = (end * (1 - end) / num) ** 0.5
        assert abs(share - end) / deviation == pytest.approx(1.96)
