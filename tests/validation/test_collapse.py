import numpy as np
import pytest

from dfkd_edge.validation.statistics import answer_entropy, find_collapse


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


def test_few_answers_on_clean_images_are_no_collapse_elsewhere() -> None:
    clean = mostly_first(7, 0.8)
    assert not find_collapse(clean, {"noise": mostly_first(7, 0.85)})
