from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dfkd_edge.errors import UsageError
from dfkd_edge.interfaces import ModelOutputs
from dfkd_edge.pictures.labelled import find_labelled
from dfkd_edge.results.ladder import HELDOUT_DOMAIN, START, STUDENT, TEACHER
from dfkd_edge.results.wording import Metric
from dfkd_edge.runtime.faults import Fault
from dfkd_edge.runtime.preprocess import read_picture
from dfkd_edge.validation.evaluation_images import ArraySource, EvaluationSet
from dfkd_edge.validation.ladder import Rung, climb, summarise


def _picture(path: Path, colour: str = "red") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 10), colour).save(path)


class _Runner:
    def __init__(self, name: str, logits: Callable[[NDArray[np.uint8]], NDArray[Any]]) -> None:
        self.name, self._logits = name, logits

    def __call__(self, image_NHWC: NDArray[np.uint8]) -> ModelOutputs:
        logits_NK = self._logits(image_NHWC).astype(np.float32)
        return ModelOutputs(logits_NK, logits_NK, logits_NK)


class _Progress:
    def advance(self, count: int = 1, note: str = "") -> None:
        pass


def test_domains_and_single_folders_are_both_found(tmp_path: Path) -> None:
    _picture(tmp_path / "photo" / "Great_Dane" / "1.jpg")
    _picture(tmp_path / "photo" / "cat" / "1.png")
    _picture(tmp_path / "photo" / "unlisted" / "1.png")
    (domain,) = find_labelled(tmp_path, ("great dane", "cat")).domains
    assert (domain.name, domain.labels) == ("photo", (0, 1))
    (single,) = find_labelled(tmp_path / "photo", ("great dane", "cat")).domains
    assert single.labels == (0, 1)


def test_a_folder_without_our_classes_is_an_error(tmp_path: Path) -> None:
    _picture(tmp_path / "photo" / "unlisted" / "1.png")
    with pytest.raises(UsageError, match="no picture of any class"):
        find_labelled(tmp_path, ("dog", "cat"))
    with pytest.raises(UsageError, match="no such folder"):
        find_labelled(tmp_path / "missing", ("dog", "cat"))


def test_pictures_are_squared_and_alpha_lies_on_white(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGBA", (20, 10), (0, 0, 0, 0)).save(path)
    assert read_picture(path, 16).shape == (16, 16, 3)
    assert read_picture(path, 16).min() == 255


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"\xff\xd8 cut")
    with pytest.raises(Fault, match=r"broken\.jpg"):
        read_picture(path, 16)


@pytest.mark.parametrize("metric", ["top1", "agreement"])
def test_surrogates_count_by_the_teacher_and_not_beside_labelled_pictures(metric: Metric) -> None:
    image = np.zeros((4, 2, 2, 3), np.uint8) + 255 * np.eye(4, 3, dtype=np.uint8)[:, None, None]
    labels = np.array([0, 1, 2, 0])
    sees = _Runner(TEACHER, lambda image: image.mean((1, 2)))  # of black: class 0
    blind = _Runner(STUDENT, lambda image: np.tile([1, 0, 0], (len(image), 1)))
    rungs = [Rung(n, r, 2) for n, r in ((TEACHER, sees), (START, blind), (STUDENT, blind))]
    made = ArraySource(HELDOUT_DOMAIN, image, labels[::-1].copy())
    taken = ArraySource("photo", image, labels)
    sources = (made, taken) if metric == "top1" else (made,)
    predictions = climb(rungs, EvaluationSet(sources, metric, ""), frozenset(), _Progress())
    ladder = summarise(("a", "b", "c"), rungs, predictions)
    surrogates = ladder.shipped.domains[HELDOUT_DOMAIN]
    assert surrogates.confusion == {"a": {"a": 2}, "b": {"a": 1}, "c": {"a": 1}}
    assert surrogates.agreement == 0.5
    if metric == "top1":
        assert ladder.mean_over == ("photo",)
        assert [rung.mean_top1 for rung in ladder.rungs] == [1, 0.5, 0.5]
        assert ladder.shipped.domains["photo"].confusion == surrogates.confusion
    else:
        assert ladder.mean_over == (HELDOUT_DOMAIN,)
        assert ladder.shipped.mean_top1 is None
        assert ladder.shipped.mean_agreement == 0.5
