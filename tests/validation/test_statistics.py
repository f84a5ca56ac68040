import itertools

import numpy as np
import pytest

from dfkd_edge.runtime.share_interval import exact_interval
from dfkd_edge.validation.statistics import (
    answer_entropy,
    find_collapse,
    mean_divergence,
    paired_drop,
    share_interval,
    sign_flip_p_value,
)


def test_a_handful_of_equal_answers_is_not_certain_and_views_of_them_add_nothing() -> None:
    right = np.ones(3, np.bool_)
    few = share_interval(right)
    assert few.low < 0.5 < few.mean == few.high == 1
    assert share_interval(np.ones(30, np.bool_), np.arange(30) % 3).low == pytest.approx(few.low)


def test_views_that_err_apart_make_a_share_surer_and_views_that_err_together_do_not() -> None:
    pictures, rng = np.repeat(np.arange(400), 9), np.random.default_rng(0)
    together = np.repeat(rng.random(400) < 0.7, 9)
    apart = rng.random(3_600) < 0.7
    once = share_interval(together[::9])
    widths = [f.high - f.low for f in (once, share_interval(together, pictures))]
    assert widths[1] == pytest.approx(widths[0], rel=0.02)
    many = share_interval(apart, pictures)
    assert many.high - many.low == pytest.approx(widths[0] / 3, rel=0.15)


@pytest.mark.parametrize("num_right", [0, 3, 511, 999, 1000])
def test_pictures_shown_once_have_the_interval_that_the_device_states(num_right: int) -> None:
    right = np.arange(1000) < num_right
    for pictures in (None, np.arange(1000)):
        found = share_interval(right, pictures)
        assert (found.low, found.high) == exact_interval(num_right / 1000, 1000)
    views = share_interval(np.repeat(right, 2), np.arange(2000) // 2)
    assert views.high - views.low >= found.high - found.low


def test_no_change_on_a_handful_of_pictures_leaves_room_for_a_large_loss() -> None:
    right = np.ones(3, np.bool_)
    few, many = paired_drop(right, right), paired_drop(np.ones(3000, bool), np.ones(3000, bool))
    assert few.num_pictures == 3
    assert few.drop.low < -0.5 < 0.5 < few.drop.high
    assert many.drop.high < 0.002


def test_showing_the_same_pictures_in_more_domains_makes_nothing_surer() -> None:
    right, pictures, domains = np.ones(60, np.bool_), np.arange(60) % 30, np.arange(60) // 30
    once = paired_drop(right[:30], right[:30])
    shared = paired_drop(right, right, pictures, domains)
    assert shared.num_pictures == 30
    assert shared.drop.high == pytest.approx(once.drop.high)
    assert paired_drop(right, right, None, domains).drop.high < once.drop.high


@pytest.mark.parametrize(
    ("lost", "won", "p_value"),
    [(0, 0, 1.0), (5, 5, 1.0), (0, 5, 0.0625), (6, 0, 0.03125), (10, 2, 0.03857421875)],
)
def test_one_view_a_picture_gives_mcnemars_exact_test(lost: int, won: int, p_value: float) -> None:
    change = np.repeat([1, -1, 0], [lost, won, 7])
    assert sign_flip_p_value(change) == pytest.approx(p_value)
    assert sign_flip_p_value(-3 * change) == pytest.approx(p_value)


def test_changes_of_unequal_size_are_weighed_exactly_and_thousands_do_not_underflow() -> None:
    change = np.array([3, -1, 2, 2])
    sums = np.array(list(itertools.product((-1, 1), repeat=4))) @ change
    assert sign_flip_p_value(change) == pytest.approx((abs(sums) >= change.sum()).mean())
    assert 0 <= sign_flip_p_value(np.repeat([1, -1], [4000, 1000])) < 1e-12


def test_repeating_every_picture_adds_no_evidence() -> None:
    before, after = np.ones(40, np.bool_), np.arange(40) >= 5
    once = paired_drop(before, after)
    pictures = np.tile(np.arange(40), 10)
    repeated = paired_drop(np.tile(before, 10), np.tile(after, 10), pictures)
    assert repeated.drop.mean == pytest.approx(once.drop.mean)
    assert once.drop.high <= repeated.drop.high < 1.05 * once.drop.high
    assert repeated.p_value == pytest.approx(once.p_value)
    assert repeated.is_within_noise
    assert not paired_drop(np.tile(before, 10), np.tile(after, 10)).is_within_noise


def test_a_mean_over_domains_weighs_them_equally_and_is_as_sure_as_the_least_of_them() -> None:
    domain = np.repeat([0, 1], [4_000, 40])
    mixed = np.concatenate([np.arange(4_000) % 4 == 0, np.arange(40) % 4 > 0])
    found, small = share_interval(mixed, None, domain), share_interval(mixed[4_000:])
    assert found.mean == pytest.approx(0.5)
    assert found.high - found.low == pytest.approx((small.high - small.low) / 2, rel=0.02)


def test_a_drop_of_balanced_flips_is_noise_and_a_one_sided_one_is_not() -> None:
    before, after = np.ones(400, np.bool_), np.arange(400) >= 12
    real = paired_drop(before, after)
    assert (real.num_lost, real.num_won, real.is_within_noise) == (12, 0, False)
    assert real.drop.mean == pytest.approx(0.03)
    before[12:22] = False
    assert paired_drop(before, after).drop.mean == pytest.approx(0.005)
    assert paired_drop(before, after).is_within_noise


@pytest.mark.parametrize("num_pictures", [5, 10, 20])
def test_the_interval_of_a_drop_covers_the_truth_with_few_pictures_too(num_pictures: int) -> None:
    rng, num_covered = np.random.default_rng(0), 0
    for _ in range(400):
        fate = rng.choice(3, num_pictures, p=[0.3, 0.3, 0.4])  # lost, won, the same
        drop = paired_drop(fate == 0, fate == 1).drop
        num_covered += drop.low <= 0 <= drop.high
    assert num_covered >= 0.94 * 400


def test_divergence_is_zero_for_shifted_logits_and_grows_with_the_difference() -> None:
    logits = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    assert mean_divergence(logits, logits + 3) == pytest.approx(0, abs=1e-6)
    near, far = mean_divergence(logits, logits * 1.1), mean_divergence(logits, logits * 3)
    assert 0 < (near or 0) < (far or 0)


def test_broken_rows_are_kept_out_of_the_divergence() -> None:
    logits = np.zeros((4, 3), np.float32)
    broken = logits.copy()
    broken[1, 2], broken[3, 0] = np.nan, np.inf
    assert mean_divergence(logits, broken) == pytest.approx(0)
    assert mean_divergence(logits[1:2], broken[1:2]) is None


@pytest.mark.parametrize("num_views", [1, 7])
@pytest.mark.parametrize("harm", [-0.06, 0.0, 0.02, 0.06])
def test_interval_and_test_agree_on_zero(num_views: int, harm: float) -> None:
    rng = np.random.default_rng(0)
    pictures, decided = np.tile(np.arange(66), num_views), set()
    wrong = [[0.03 + max(0, -harm)], [0.03 + max(0, harm)]]
    for _ in range(200):
        before, after = rng.random((2, 66 * num_views)) > wrong
        found = paired_drop(before, after, pictures)
        is_inside = found.drop.low < 0 < found.drop.high
        assert is_inside <= found.is_within_noise
        assert found.is_within_noise <= (found.drop.low <= 0 <= found.drop.high)
        decided.add(found.is_within_noise)
    assert decided == {True, False} or harm == 0


@pytest.mark.parametrize("num_views", [1, 8, 24])
def test_who_loses_more_is_never_told_that_less_is_possible(num_views: int) -> None:
    pictures = np.repeat(np.arange(60), num_views)
    before, ends = np.ones(60 * num_views, bool), []
    for num_lost in range(21):
        after = np.repeat(np.arange(60) >= num_lost, num_views)
        ends.append(paired_drop(before, after, pictures).drop.high)
    assert ends == sorted(ends)
    assert ends[6] >= paired_drop(before[:60], np.arange(60) >= 6).drop.high


def test_a_loss_of_few_whole_pictures_lies_below_the_upper_end() -> None:
    rng, num_below, loss = np.random.default_rng(0), 0, 0.02 + 0.98 * 0.01
    pictures, before = np.repeat(np.arange(60), 24), np.ones(1440, bool)
    for _ in range(200):
        wrong_P = np.where(rng.random(60) < 0.02, 1, 0.01)
        after = rng.random(1440) >= np.repeat(wrong_P, 24)
        num_below += loss > paired_drop(before, after, pictures).drop.high
    assert num_below <= 10


def test_a_domain_of_thousands_counts_beside_one_of_tens() -> None:
    domains = np.repeat([0, 1], [50, 12_000])
    before = np.ones(len(domains), bool)
    found = paired_drop(before, np.arange(len(domains)) % 12_050 < 10_856, domain_N=domains)
    assert found.p_value < 1e-9
    assert found.drop.low > 0


def mostly_first(num_classes: int, share: float) -> np.ndarray:
    """Answers of which the first class has a share and the others equal parts of the rest."""
    num_first = round(share * 10_000)
    rest = np.arange(10_000 - num_first) % (num_classes - 1) + 1
    return np.concatenate([np.zeros(num_first, np.int64), rest])


def test_the_entropy_of_equal_shares_is_that_of_so_many_classes() -> None:
    assert answer_entropy(np.arange(70) % 7) == pytest.approx(np.log(7))
    assert answer_entropy(np.zeros(5, np.int64)) == 0


@pytest.mark.parametrize(("num_classes", "share"), [(2, 0.89), (7, 0.77), (1_000, 0.6)])
def test_a_teacher_has_collapsed_once_half_the_entropy_is_gone(
    num_classes: int, share: float
) -> None:
    clean = np.arange(10_000) % num_classes
    less, more = (mostly_first(num_classes, share + change) for change in (-0.02, 0.02))
    found = find_collapse(clean, {"clean": clean, "less": less, "more": more})
    assert list(found) == ["more"]
    assert found["more"] == pytest.approx((0, share + 0.02))
    # few answers on clean images are no collapse elsewhere
    assert not find_collapse(mostly_first(7, 0.8), {"noise": mostly_first(7, 0.85)})
