import dataclasses
import threading

import numpy as np
import pytest
import torch

from dfkd_edge.artifacts import SurrogateSet
from dfkd_edge.distillation.batches import (
    Batch,
    Batches,
    Drawn,
    ImagePool,
    make_views,
    open_pool,
)
from dfkd_edge.distillation.rows import HardImages, RowDraws
from dfkd_edge.networks.views import Views
from dfkd_edge.runs.row_stores import ArrayRows
from tests.fixtures.typed import blocks, surrogate_set


@pytest.fixture
def uneven() -> SurrogateSet:
    """Class 0 has 90 images in style 0 and 10 in style 5, class 1 has 20 in style 3."""
    label = np.repeat([0, 0, 1], [90, 10, 20])
    style = np.repeat([0, 5, 3], [90, 10, 20])
    return surrogate_set(np.zeros((120, 2, 2, 3), np.uint8), label, style_index=style)


def _drawn(surrogates: SurrogateSet, *, balance: bool) -> np.ndarray:
    draws = RowDraws(surrogates, 0, balance)
    return np.concatenate([draws.draw(step, 64) for step in range(100)])


def test_images_held_out_are_never_drawn_and_all_others_are(uneven: SurrogateSet) -> None:
    few = dataclasses.replace(uneven, is_heldout=np.arange(120) < 5)
    for balance in (False, True):
        assert np.array_equal(np.unique(_drawn(few, balance=balance)), np.arange(5, 120))


def test_balance_draws_rare_styles_of_a_class_as_often_and_classes_as_before(
    uneven: SurrogateSet,
) -> None:
    plain, even = (_drawn(uneven, balance=b) for b in (False, True))
    label = uneven.class_index
    assert np.array_equal(label[plain], label[even])
    rare = [float((uneven.style_index[d] == 5).mean()) for d in (plain, even)]
    # half over images: 10 / 120; half over classes, then styles: 1 / 2 times 1 / 10 or 1 / 2
    assert rare[0] == pytest.approx(0.5 * 10 / 120 + 0.5 * 0.05, abs=0.02)
    assert rare[1] == pytest.approx(0.5 * 10 / 120 + 0.5 * 0.25, abs=0.02)


def _hard(num_images: int, share: float) -> HardImages:
    return HardImages(num_images, share, 0, torch.device("cpu"))


def test_hard_images_are_drawn_more_often_and_none_before_the_host_knows_one() -> None:
    hard, batch = _hard(100, 0.25), np.arange(40)
    hard.remember(np.arange(50), torch.arange(50) / 50)
    assert np.array_equal(hard.replace(batch, 0), batch)  # else it would have waited for a device
    hard.catch_up()
    drawn = np.stack([hard.replace(batch, step) for step in range(20)])
    assert np.array_equal(np.unique(drawn[:, :10]), np.arange(45, 50))  # a tenth of what was seen
    assert (drawn[:, 10:] == batch[10:]).all()


def test_an_image_that_became_easy_is_left_alone_and_the_worst_of_its_views_counts() -> None:
    hard = _hard(3, 0.5)
    hard.remember(np.array([0, 1, 1, 2]), torch.tensor([0.9, 0.2, 0.1, 0.3]))
    hard.catch_up()
    assert set(hard.replace(np.array([1, 1]), 0)) == {0, 1}
    hard.remember(np.array([0, 2, 2]), torch.tensor([0.1, 0.5, 0.05]))
    hard.catch_up()
    assert hard.tensors["disagreement"].tolist() == pytest.approx([0.1, 0.2, 0.5])
    assert hard.replace(np.array([1, 1]), 0).tolist() == [2, 1]


def test_without_a_share_nothing_is_kept() -> None:
    hard = _hard(3, 0.0)
    hard.remember(np.array([0]), torch.tensor([1.0]))
    hard.catch_up()
    assert hard.tensors == {}
    assert hard.replace(np.array([1, 2]), 4).tolist() == [1, 2]


@pytest.mark.parametrize("room_bytes", [0, 1 << 30])
def test_images_are_the_same_from_a_pool_on_the_device_and_from_the_host(room_bytes: int) -> None:
    images = blocks(30, 2)
    pool = ImagePool(ArrayRows(images), torch.device("cpu"), room_bytes)
    row = np.array([7, 0, 29, 7])
    assert np.array_equal(pool.rows(row).numpy(), images[row])


def test_a_part_of_a_batch_has_the_views_that_it_has_in_the_whole(uneven: SurrogateSet) -> None:
    small = dataclasses.replace(uneven, images=ArrayRows(blocks(120, 4)))
    draws, pool = RowDraws(small, 0), open_pool(small.images, torch.device("cpu"))
    batches = Batches(pool, make_views(draws, pool, 32, 0.5, 0), 0)
    drawn = batches.draw(draws.draw(3, 24), 3)
    whole = batches.view(batches.prepare(drawn))
    for part in (slice(0, 12), slice(12, 24)):
        made = batches.view(batches.prepare(drawn.part(part)))
        torch.testing.assert_close(made, whole[part], rtol=0, atol=1e-6)


def test_a_batch_that_was_prepared_in_a_thread_is_the_same(uneven: SurrogateSet) -> None:
    pool = ImagePool(uneven.images, torch.device("meta"), 0)  # as an accelerator is served
    views = Views(2, 0.5, torch.zeros(4, 2, 3, device="meta"))
    batches = Batches(pool, views, 0)
    drawn, names = batches.draw(np.arange(8), 0), list[str]()
    prepare = batches.prepare

    def watched(drawn: Drawn) -> Batch:
        names.append(threading.current_thread().name)
        return prepare(drawn)

    batches.prepare = watched  # type: ignore[method-assign]
    with batches.reading_ahead():
        batch = batches.begin(drawn, [slice(0, 8)]).part(slice(0, 8))
    assert batch.image_NHWC.is_meta
    assert batch.plan.counts == prepare(drawn).plan.counts
    assert names[0].startswith("batches")
