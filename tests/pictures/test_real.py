"""Which real pictures are taken to learn from."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dfkd_edge.config.settings import FewShotConfig
from dfkd_edge.errors import ConfigError, EnvironmentLackingError
from dfkd_edge.pictures.real import find_real_pictures

MakePicture = Callable[[Path, int], Path]
NAMES = ("dog", "house", "person")


def test_a_test_picture_is_refused_under_any_name(tmp_path: Path, picture: MakePicture) -> None:
    file = picture(tmp_path / "few" / "dog" / "1.png", 1)
    copy = tmp_path / "test" / "photo" / "dog" / "other.png"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(file.read_bytes())
    config = FewShotConfig(images=str(tmp_path / "few"))
    with pytest.raises(ConfigError, match="also a test picture"):
        find_real_pictures(config, str(tmp_path / "test"), NAMES)


@pytest.mark.parametrize(
    ("names", "fault"),
    [([], "no picture"), (["dog/1.png", "dog/2.png", "dog/3.png"], "3 pictures of a class")],
)
def test_none_and_too_many_are_refused(
    tmp_path: Path, names: list[str], fault: str, picture: MakePicture
) -> None:
    for number, name in enumerate(names):
        picture(tmp_path / name, number)
    config = FewShotConfig(images=str(tmp_path), max_per_class=2)
    with pytest.raises(ConfigError, match=fault):
        find_real_pictures(config, "", NAMES)
    with pytest.raises(ConfigError, match="no such folder"):
        find_real_pictures(dataclasses.replace(config, images=str(tmp_path / "x")), "", NAMES)


@pytest.mark.parametrize("content", [b"", b"no picture", b"cut"])
def test_a_picture_that_cannot_be_read_is_named(
    tmp_path: Path, content: bytes, picture: MakePicture
) -> None:
    whole = picture(tmp_path / "dog" / "1.png", 1)
    broken = tmp_path / "dog" / "2.png"
    broken.write_bytes(whole.read_bytes()[:900] if content == b"cut" else content)
    with pytest.raises(ConfigError, match=r"picture cannot be read \(--images, .*2\.png\): remove"):
        find_real_pictures(FewShotConfig(images=str(tmp_path)), "", NAMES)


def test_without_pillow_the_environment_lacks_something_and_the_picture_is_not_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: MakePicture
) -> None:
    picture(tmp_path / "dog" / "1.png", 1)
    monkeypatch.setitem(sys.modules, "PIL", None)  # as where it is not installed
    with pytest.raises(EnvironmentLackingError, match="pictures need Pillow"):
        find_real_pictures(FewShotConfig(images=str(tmp_path)), "", NAMES)
