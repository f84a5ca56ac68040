import numpy as np
import pytest

from dfkd_edge.artifacts import SurrogateSet
from dfkd_edge.conversion.calibration_source import select_surrogates
from tests.fixtures.typed import surrogate_set, whole


@pytest.fixture
def surrogates() -> SurrogateSet:
    generator = np.random.default_rng(0)
    num = 1200
    images = generator.integers(0, 256, (num, 8, 8, 3), dtype=np.uint8)
    labels = np.sort(generator.integers(0, 4, num))
    fields = {"style_index": generator.integers(0, 5, num), "is_heldout": np.arange(num) % 10 == 0}
    return surrogate_set(images, labels, **fields)


def test_images_are_balanced_by_class_and_style_and_never_held_out(
    surrogates: SurrogateSet,
) -> None:
    rows = {image.tobytes(): row for row, image in enumerate(whole(surrogates.images))}
    chosen = select_surrogates(surrogates, 500, 8, 3)
    row_of = np.array([rows[image.tobytes()] for image in chosen.images])
    assert not surrogates.is_heldout[row_of].any()
    for part in (row_of, row_of[:250]):
        counts = np.bincount(surrogates.class_index[part])
        assert counts.max() - counts.min() <= 1
    styles = np.bincount(surrogates.style_index[row_of])
    assert styles.min() > 0.8 * styles.mean()
    assert "4 classes in 5 styles" in chosen.description


def test_where_images_are_too_few_each_comes_mirrored_once_more(surrogates: SurrogateSet) -> None:
    num = int((~surrogates.is_heldout).sum())
    chosen = select_surrogates(surrogates, 2 * num, 8, 3)
    once, again = np.split(chosen.images, 2)
    assert np.array_equal(again, once[:, :, ::-1])
    assert len({image.tobytes() for image in chosen.images}) == 2 * num
    assert f"{num} of them mirrored too" in chosen.description
    assert "mirrored" not in select_surrogates(surrogates, num, 8, 3).description


def test_equal_seeds_choose_equal_images_of_the_students_size(surrogates: SurrogateSet) -> None:
    first, again, other = (select_surrogates(surrogates, 500, 16, s).images for s in (1, 1, 2))
    assert first.shape == (500, 16, 16, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
