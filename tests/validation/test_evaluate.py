from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dfkd_edge.errors import ConfigError, UsageError
from dfkd_edge.interfaces import ModelOutputs
from dfkd_edge.networks.runners import SizedRunner
from dfkd_edge.pictures.labelled import find_labelled
from dfkd_edge.runtime.faults import Fault
from dfkd_edge.runtime.preprocess import read_picture
from dfkd_edge.validation.evaluate import compare, folder_batches, summarise


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


def test_a_broken_picture_is_passed_over_and_named(tmp_path: Path) -> None:
    _picture(tmp_path / "cat" / "1.png")
    _picture(tmp_path / "dog" / "1.png")
    (tmp_path / "cat" / "0.jpg").write_bytes(b"\xff\xd8 cut")
    unreadable: list[Path] = []
    (domain,) = find_labelled(tmp_path, ("dog", "cat")).domains
    ((image_NHWC, label_N),) = folder_batches(domain, 16, unreadable)
    assert image_NHWC.shape == (2, 16, 16, 3)
    assert label_N.tolist() == [1, 0]
    assert unreadable == [tmp_path / "cat" / "0.jpg"]


def test_a_domain_of_broken_pictures_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "night" / "dog").mkdir(parents=True)
    (tmp_path / "night" / "dog" / "0.jpg").write_bytes(b"\xff\xd8 cut")
    (domain,) = find_labelled(tmp_path, ("dog", "cat")).domains
    with pytest.raises(ConfigError, match="no picture of domain 'night' can be read"):
        list(folder_batches(domain, 16, []))


def test_images_have_the_side_of_the_ladder_before_they_are_run() -> None:
    image = np.zeros((2, 4, 4, 3), np.uint8)
    image[1, :2] = 200
    whole = _Runner("student", lambda image: image[:, :, :, 0].reshape(len(image), -1))
    assert SizedRunner(whole, 4)(image).logits.shape == (2, 16)
    small = SizedRunner(whole, 1)
    assert small.name == "student"
    assert small(image).logits.tolist() == [[0], [100]]


def test_agreement_is_with_the_first_network_and_means_are_over_domains() -> None:
    image = np.zeros((4, 2, 2, 3), np.uint8) + 255 * np.eye(4, 3, dtype=np.uint8)[:, None, None]
    labels = np.array([0, 1, 2, 0])

    networks = {
        "teacher": _Runner("teacher", lambda image: image.mean((1, 2))),  # of black: class 0
        "student": _Runner("student", lambda image: np.tile([1, 0, 0], (len(image), 1))),
    }
    figures = compare(iter([(image, labels)]), networks, ("a", "b", "c"), _Progress())
    assert {figures["teacher"][key] for key in ("top1", "agreement")} == {1.0}
    assert {figures["student"][key] for key in ("top1", "agreement")} == {0.5}
    assert figures["student"]["num_images"] == 4
    assert figures["student"]["confusion"] == {"a": {"a": 2}, "b": {"a": 1}, "c": {"a": 1}}
    by_teacher = compare(
        iter([(image, labels[::-1])]), networks, ("a", "b", "c"), _Progress(), "agreement"
    )
    assert by_teacher["student"]["confusion"] == figures["student"]["confusion"]
    assert by_teacher["student"]["top1"] == 0.5
    assert by_teacher["teacher"]["top1"] < 1
    document = summarise(("a", "b", "c"), {"held-out surrogates": figures, "photo": figures})
    assert document["retention"] == 0.5
    assert document["truth"] == "top1"
    assert summarise(("a",), {"held-out surrogates": by_teacher})["truth"] == "agreement"
    assert document["rungs"][1]["worst_domain"] == "photo"
