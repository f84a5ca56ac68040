"""What the classes that stay lose to those that a swap adds, class by class."""

from typing import Any

import numpy as np
import pytest

from dfkd_edge.interfaces import ModelOutputs
from dfkd_edge.validation.evaluation_images import VIEWS_DOMAIN, ArraySource, EvaluationSet
from dfkd_edge.validation.ladder import Rung
from dfkd_edge.validation.predictions import DomainPredictions, Predictions
from dfkd_edge.validation.rungs import Proof
from dfkd_edge.validation.swapped import Lists, kept_cost
from tests.conftest import SilentReporter
from tests.fixtures.typed import surrogate_set

OLD = tuple(f"class {number}" for number in range(100))


class Reader:
    """A rung that reads the class off the pixels; one of them it takes for another."""

    def __init__(self, name: str, taken: int = -1) -> None:
        self.name, self.taken = name, taken

    def __call__(self, image_NHWC: Any) -> ModelOutputs:
        """Answer a new class, the last, for the one that is taken."""
        asked_N = image_NHWC[:, 0, 0, 0].astype(np.int64)
        answer_N = np.where(asked_N == self.taken, len(OLD), asked_N)
        logits_NK = np.eye(len(OLD) + 1, dtype=np.float32)[answer_N]
        return ModelOutputs(logits_NK, logits_NK, logits_NK)


@pytest.mark.parametrize(("images_a_class", "taken"), [(1, 7), (12, 7), (12, -1)])
def test_one_class_of_a_long_list_that_an_added_one_takes_is_told_by_name(
    images_a_class: int, taken: int
) -> None:
    """The mean over a hundred classes, of which one image each is held out, loses one point."""
    class_N = np.tile(np.arange(len(OLD)), images_a_class)
    image_NHWC = np.tile(class_N.astype(np.uint8)[:, None, None, None], (1, 8, 8, 3))
    is_heldout = np.arange(len(class_N)) < len(OLD)
    surrogates = surrogate_set(image_NHWC, class_N, is_heldout=is_heldout)
    rows, last = np.arange(len(OLD)), Reader("last", taken)
    part = DomainPredictions(rows, rows, {"last": last(image_NHWC[rows]).logits})
    views = EvaluationSet((ArraySource(VIEWS_DOMAIN, image_NHWC[rows], rows),), "agreement", "")
    seen = Predictions("agreement", {VIEWS_DOMAIN: part})
    lists = Lists(OLD, (*OLD, "unseen"), (*OLD, "zebra", "unseen"))
    cost, unmeasured = kept_cost(
        Rung("last", Reader("last"), 8),
        Proof((Rung("last", last, 8),), seen, views),
        lists,
        surrogates,
        SilentReporter(),
    )
    assert cost is not None
    assert unmeasured == ("unseen",)
    assert cost.num_images == len(OLD)
    assert cost.drop == pytest.approx(0.01 * (taken >= 0))
    assert cost.is_told is (taken >= 0)
    if taken >= 0:
        num = min(images_a_class, 8)
        assert cost.sentence().endswith(f"by class: class 7 to zebra ({num} of {num} right -> 0)")
