from pathlib import Path

import pytest

from dfkd_edge.errors import UsageError
from dfkd_edge.pictures.labelled import find_labelled
from tests.fixtures.files import write_picture


@pytest.mark.parametrize("root", [".", "cat"])
def test_images_that_a_run_has_saved_are_no_pictures_to_measure_on(
    tmp_path: Path, root: str
) -> None:
    write_picture(tmp_path / "cat" / "a.png", 0)
    assert find_labelled(tmp_path, ("cat", "dog")).domains
    (tmp_path / "dfkd-edge-images.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UsageError, match="surrogate images, which students learn from"):
        find_labelled(tmp_path / root, ("cat", "dog"))
