from pathlib import Path

import pytest
from PIL import Image

from dfkd_edge.errors import UsageError
from dfkd_edge.pictures.labelled import find_labelled
from dfkd_edge.runtime.preprocess import read_picture
from tests.fixtures.files import write_picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("Great_Dane/1.jpg", "cat/1.png", "unlisted/1.png"):
        write_picture(tmp_path / "photo" / name, 0)
    return tmp_path


def test_domains_and_single_folders_are_both_found_and_a_foreign_one_is_an_error(
    folder: Path,
) -> None:
    (domain,) = find_labelled(folder, ("great dane", "cat")).domains
    assert (domain.name, domain.labels) == ("photo", (0, 1))
    (single,) = find_labelled(folder / "photo", ("great dane", "cat")).domains
    assert single.labels == (0, 1)
    with pytest.raises(UsageError, match="no picture of any class"):
        find_labelled(folder, ("dog", "house"))
    with pytest.raises(UsageError, match="no such folder"):
        find_labelled(folder / "missing", ("dog", "cat"))


def test_pictures_are_squared_and_alpha_lies_on_white(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGBA", (20, 10), (0, 0, 0, 0)).save(path)
    assert read_picture(path, 16).shape == (16, 16, 3)
    assert read_picture(path, 16).min() == 255
