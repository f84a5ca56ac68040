"""Which real pictures are taken to learn from."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfkd_edge.config import FewShotConfig
from dfkd_edge.errors import ConfigError, EnvironmentLackingError
from dfkd_edge.real_pictures import find_real_pictures

NAMES = ("dog", "house", "person")


def picture(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_a_test_picture_is_refused_under_any_name(tmp_path: Path) -> None:
    file = picture(tmp_path / "few" / "dog" / "1.png", 1)
    copy = tmp_path / "test" / "photo" / "dog" / "other.png"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(file.read_bytes())
    with pytest.raises(ConfigError, match="also a test picture"):
        find_real_pictures(
            FewShotConfig(images=str(tmp_path / "few")), str(tmp_path / "test"), NAMES
        )


@pytest.mark.parametrize(
    ("names", "fault"),
    [([], "no picture"), (["dog/1.png", "dog/2.png", "dog/3.png"], "3 pictures of a class")],
)
def test_none_and_too_many_are_refused(tmp_path: Path, names: list[str], fault: str) -> None:
    for number, name in enumerate(names):
        picture(tmp_path / name, number)
    config = FewShotConfig(images=str(tmp_path), max_per_class=2)
    with pytest.raises(ConfigError, match=fault):
        find_real_pictures(config, "", NAMES)
    with pytest.raises(ConfigError, match="no such folder"):
        find_real_pictures(dataclasses.replace(config, images=str(tmp_path / "x")), "", NAMES)


@pytest.mark.parametrize("content", [b"", b"no picture", b"cut"])
def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    whole = picture(tmp_path / "dog" / "1.png", 1)
    broken = tmp_path / "dog" / "2.png"
    broken.write_bytes(whole.read_bytes()[:900] if content == b"cut" else content)
    with pytest.raises(ConfigError, match=r"picture cannot be read \(--images, .*2\.png\): remove"):
        find_real_pictures(FewShotConfig(images=str(tmp_path)), "", NAMES)


def test_without_pillow_the_environment_lacks_something_and_the_picture_is_not_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(tmp_path / "dog" / "1.png", 1)
    monkeypatch.setitem(sys.modules, "PIL", None)  # as where it is not installed
    with pytest.raises(EnvironmentLackingError, match="pictures need Pillow"):
        find_real_pictures(FewShotConfig(images=str(tmp_path)), "", NAMES)
