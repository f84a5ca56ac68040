import numpy as np
import pytest
import torch

from dfkd_edge.artifacts import SurrogateSet
from dfkd_edge.distillation.batches import HardImages, draw_rows
from tests.fixtures.typed import surrogate_set


@pytest.fixture
def uneven() -> SurrogateSet:
    """Class 0 has 90 images in style 0 and 10 in style 5, class 1 has 20 in style 3."""
    label = np.repeat([0, 0, 1], [90, 10, 20])
    style = np.repeat([0, 5, 3], [90, 10, 20])
    return surrogate_set(np.zeros((120, 2, 2, 3), np.uint8), label, style_index=style)


def _drawn(surrogates: SurrogateSet, rows: np.ndarray, *, balance: bool) -> np.ndarray:
    return np.concatenate([draw_rows(surrogates, rows, s, 64, 0, balance) for s in range(100)])


def test_only_the_given_rows_are_drawn_all_of_them_either_way(uneven: SurrogateSet) -> None:
    rows = np.arange(5, 120)
    for balance in (False, True):
        assert np.array_equal(np.unique(_drawn(uneven, rows, balance=balance)), rows)


def test_balance_draws_rare_styles_of_a_class_as_often_and_classes_as_before(
    uneven: SurrogateSet,
) -> None:
    plain, even = (_drawn(uneven, np.arange(120), balance=b) for b in (False, True))
    label = uneven.class_index
    assert np.array_equal(label[plain], label[even])
    rare = [float((uneven.style_index[d] == 5).mean()) for d in (plain, even)]
    # half over images: 10 / 120; half over classes, then styles: 1 / 2 times 1 / 10 or 1 / 2
    assert rare[0] == pytest.approx(0.5 * 10 / 120 + 0.5 * 0.05, abs=0.02)
    assert rare[1] == pytest.approx(0.5 * 10 / 120 + 0.5 * 0.25, abs=0.02)


def test_hard_images_are_drawn_more_often_and_none_before_one_was_seen() -> None:
    hard, batch = HardImages(100, 0.25, seed=0), np.arange(40)
    assert np.array_equal(hard.replace(batch, 0), batch)
    hard.remember(np.arange(50), torch.arange(50) / 50)
    drawn = np.stack([hard.replace(batch, step) for step in range(20)])
    assert np.array_equal(np.unique(drawn[:, :10]), np.arange(45, 50))  # a tenth of what was seen
    assert (drawn[:, 10:] == batch[10:]).all()


def test_an_image_that_became_easy_is_left_alone_and_the_worst_of_its_views_counts() -> None:
    hard = HardImages(3, 0.5, seed=0)
    hard.remember(np.array([0, 1, 1, 2]), torch.tensor([0.9, 0.2, 0.1, 0.3]))
    assert set(hard.replace(np.array([1, 1]), 0)) == {0, 1}
    hard.remember(np.array([0, 2, 2]), torch.tensor([0.1, 0.5, 0.05]))
    assert hard.tensors["disagreement"].tolist() == pytest.approx([0.1, 0.2, 0.5])
    assert hard.replace(np.array([1, 1]), 0).tolist() == [2, 1]


def test_without_a_share_nothing_is_kept() -> None:
    hard = HardImages(3, 0.0, seed=0)
    hard.remember(np.array([0]), torch.tensor([1.0]))
    assert hard.tensors == {}
    assert hard.replace(np.array([1, 2]), 4).tolist() == [1, 2]
