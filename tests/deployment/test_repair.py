from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dfkd_edge.artifacts import SurrogateSet
from dfkd_edge.deployment.repair import make_chooser
from dfkd_edge.interfaces import ModelOutputs
from dfkd_edge.pictures.labelled import image_digests
from dfkd_edge.runs.context import StageContext
from dfkd_edge.validation import evaluation_images
from dfkd_edge.validation.evaluation_images import (
    ArraySource,
    Batch,
    EvaluationSet,
    surrogate_suite,
)
from dfkd_edge.validation.ladder import Rung
from dfkd_edge.validation.predictions import Predictions
from dfkd_edge.validation.rungs import Proof
from tests.fixtures.typed import blocks, surrogate_set, whole

SIDE_PX = 64


class Sealed(ArraySource):
    """Pictures of the user that must not be looked at before the choice is made."""

    def batches(self, size: int, unreadable: list[Path]) -> Iterator[Batch]:
        raise AssertionError("looked at")


class Colour:
    """Says which colour channel is strongest, and keeps what it was shown."""

    name = "colour"

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def __call__(self, image_NHWC: NDArray[np.uint8]) -> ModelOutputs:
        self.seen |= set(image_digests(image_NHWC))
        logits = image_NHWC.mean((1, 2)).astype(np.float32)
        return ModelOutputs(logits, logits, logits)


@pytest.fixture
def surrogates(monkeypatch: pytest.MonkeyPatch) -> SurrogateSet:
    monkeypatch.setattr(evaluation_images, "WANTED_IMAGES", 30)
    number = np.arange(20)
    return surrogate_set(blocks(20, SIDE_PX // 8), number % 3, is_heldout=number % 2 == 0)


def test_graphs_are_chosen_without_the_pictures_and_the_labels_of_the_proof(
    surrogates: SurrogateSet, context: StageContext
) -> None:
    sealed = Sealed("mine", whole(surrogates.images), surrogates.class_index)
    runners = {name: Colour() for name in ("teacher", "student", "onnx-fp32", "onnx-int8")}
    rungs = tuple(Rung(name, runner, SIDE_PX) for name, runner in runners.items())
    proof = Proof(rungs, Predictions("top1", {}), EvaluationSet((sealed,), "top1", "mine"))
    calibrated = frozenset(image_digests(whole(surrogates.images)[~surrogates.is_heldout]))
    run = SimpleNamespace(surrogates=surrogates)
    material: Any = SimpleNamespace(run=run, context=context, calibrated=calibrated)
    chooser = make_chooser(proof, material)
    assert chooser.known.metric == "agreement"
    assert chooser.known.rungs == ("teacher", "student", "onnx-int8")
    shown: set[str] = set()
    for source in surrogate_suite(surrogates, context.seed).sources:
        shown |= set(image_digests(next(source.batches(1000, [])).at(SIDE_PX)))
    assert len(runners["student"].seen) > 90
    assert not runners["student"].seen & shown
