"""A picture is what a person sees, on every Pillow that a device may have."""

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dfkd_edge.runtime.faults import PictureFault
from dfkd_edge.runtime.pictures import open_upright
from dfkd_edge.runtime.preprocess import contract
from tests.fixtures.picture_corpus import DEEP_HW, GREY_HW, PICTURE_HWC, STORED, write_corpus

ROOT = Path(__file__).parents[2]
OLD_PYTHON = "3.8"
PILLOWS = ("7.0.0", "8.4.0", "9.0.1")
"""Of Ubuntu 20.04 and 22.04, which are JetPack 5 and 6, and the last for the Python of JetPack 4.6.
Wheels bring another JPEG decoder than Ubuntu, so the pictures here are without loss."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder)
    return folder


def seen(path: Path) -> NDArray[np.uint8]:
    return np.asarray(open_upright(path))


def off(path: Path, expected: NDArray[np.uint8]) -> int:
    image = seen(path)
    assert image.shape == expected.shape
    return int(np.abs(image.astype(int) - expected).max())


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_every_orientation_shows_the_upright_picture(
    corpus: Path, orientation: int, suffix: str
) -> None:
    limit = 12 if suffix == "jpg" else 0
    assert off(corpus / f"turned{orientation}.{suffix}", PICTURE_HWC) <= limit


@pytest.mark.parametrize(
    ("order", "kind", "layout"), [("II", 4, "L"), ("MM", 4, "L"), ("MM", 1, "B")]
)
def test_an_orientation_is_read_by_the_type_that_it_is_written_in(
    tmp_path: Path, order: str, kind: int, layout: str
) -> None:
    way = "<" if order == "II" else ">"
    entry = struct.pack(f"{way}HHL{layout}", 274, kind, 1, 6).ljust(12, b"\0")
    exif = order.encode() + struct.pack(f"{way}HLH", 42, 8, 1) + entry + bytes(4)
    stored = Image.fromarray(np.ascontiguousarray(STORED[6](PICTURE_HWC)))
    stored.save(tmp_path / "a.png", exif=b"Exif\0\0" + exif)
    assert off(tmp_path / "a.png", PICTURE_HWC) == 0


@pytest.mark.parametrize("name", ["whole.png", "whole.bmp", "whole.ppm", "whole.tif"])
def test_formats_without_loss_show_the_same(corpus: Path, name: str) -> None:
    assert off(corpus / name, PICTURE_HWC) == 0


@pytest.mark.parametrize(
    "name", ["deep.png", "deep.tif", "deep.pgm", "unit.tif", "byte.tif", "grey.png", "grey.gif"]
)
def test_deep_greyscale_is_scaled_by_its_range_and_never_clipped(corpus: Path, name: str) -> None:
    expected = np.repeat(GREY_HW[..., None], 3, axis=2)
    assert off(corpus / name, expected) <= 1


def test_16_bits_of_colour_and_of_grey_show_their_high_bytes(corpus: Path) -> None:
    assert off(corpus / "colour16.png", PICTURE_HWC) == 0
    assert off(corpus / "deep.png", np.repeat((DEEP_HW >> 8)[..., None], 3, 2)) == 0


def test_inks_are_shown_as_light(corpus: Path) -> None:
    assert off(corpus / "ink.tif", PICTURE_HWC) <= 1
    assert off(corpus / "ink.jpg", PICTURE_HWC) <= 12


@pytest.mark.parametrize("name", ["key.png", "key_grey.png", "key_deep.png", "alpha.png"])
def test_what_is_transparent_shows_white_and_nothing_else_does(corpus: Path, name: str) -> None:
    image = seen(corpus / name)
    if name == "alpha.png":
        assert (image[:, 0] == 255).all()
        assert (image[:, -1] == PICTURE_HWC[:, -1]).all()
    else:
        assert (image[9, 9] == 255).all()
        assert (image[9, 10] != 255).any()


@pytest.mark.parametrize("suffix", ["gif", "png", "tif"])
def test_the_first_picture_of_a_film_is_shown(corpus: Path, suffix: str) -> None:
    assert (seen(corpus / f"film.{suffix}") == (255, 0, 0)).all()


@pytest.mark.parametrize("name", ["kind1.png", "kind3.png", "kind4.png", "alpha_key.png"])
def test_what_other_programs_note_beside_the_pixels_is_read_as_they_mean_it(
    corpus: Path, name: str
) -> None:
    assert np.array_equal(seen(corpus / name), PICTURE_HWC)


def test_a_part_of_a_film_lies_on_white_and_a_palette_of_8_bits_is_not_black(corpus: Path) -> None:
    part = np.full_like(PICTURE_HWC, 255)
    part[10:12, 10:12] = (255, 0, 0)
    assert np.array_equal(seen(corpus / "part.gif"), part)
    assert np.array_equal(seen(corpus / "palette8.tif"), np.dstack([GREY_HW] * 3))


def test_lab_is_shown_as_a_screen_shows_it(corpus: Path) -> None:
    error = np.abs(seen(corpus / "lab.tif").astype(int) - PICTURE_HWC)
    assert error.mean() < 1
    assert error.max() <= 16  # where it is dark, a step of Lab is many of a screen


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wide.tif", "floats of no known range, levels from 0 to 65535"),
        ("nan.tif", "floats of no known range, levels from nan to nan"),
        ("long.tif", "its numbers have a sign, and no known range"),
        ("levels100.pgm", "its levels go to 100, not to 255 or 65535"),
        ("comment.pgm", "its header is long, or damaged"),
        ("over.tif", "floats of no known range, levels from 0 to 1.02398"),
        ("signed8.tif", "its numbers have a sign"),
        ("signed16.tif", "its numbers have a sign"),
        ("apart.tif", "colours of more than 8 bits lie apart"),
    ],
)
def test_what_would_be_shown_wrong_is_refused_with_the_reason(
    corpus: Path, name: str, said: str
) -> None:
    with pytest.raises(PictureFault, match=f"picture cannot be read: {said}.*save it as"):
        open_upright(corpus / name)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "file is empty"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "its format is HEIF"),
        (b"\0\0\0\x1cftypavif" + bytes(40), "its format is AVIF"),
        (b"\0\0\0\x18ftyphevm" + bytes(40), "its format is HEIF"),
        (b"\0\0\0\x20ftypisom" + bytes(40), "its format is a film"),
        (b"II*\0\x08\0\0\0\0\0", "a TIFF of a kind that Pillow does not read"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a pointer of Git LFS"),
        (b"\n<!doctype HTML><html>404", "its format is HTML"),
        (b"\xef\xbb\xbf\n<HTML>404", "its format is HTML"),
        (b'{"error": 404}', "its format is JSON"),
        (b"PK\3\4" + bytes(40), "its format is ZIP"),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(40), "a TIFF of a kind that Pillow does not read"),
        (b"II*\0\0\0\1\0" + bytes(40), "a TIFF of"),  # its directory's place, no mark of ICO
        (b"hello", "none of JPEG, PNG, WebP"),
    ],
)
def test_a_file_that_is_only_named_like_a_picture_is_told_by_its_content(
    tmp_path: Path, content: bytes, said: str
) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(PictureFault, match=said):
        open_upright(tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", ["webp", "tif", "mpo"])
def test_formats_that_pillow_loads_late_are_read_first_of_all(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(PICTURE_HWC).save(path)
    code = "import sys; from dfkd_edge.runtime.pictures import open_upright\n"
    code += "from pathlib import Path; print(open_upright(Path(sys.argv[1])).size)"
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "(40, 30)\n", done.stderr


def test_the_contract_states_what_is_seen() -> None:
    stated = contract(64, (1, 1, 1))
    kinds = {"orientation", "depth", "colour", "transparency", "animation", "formats"}
    assert kinds <= stated.keys()
    assert stated["version"] == 2


SEE = """
import json, sys
from pathlib import Path
from dfkd_edge.runtime.faults import PictureFault
from dfkd_edge.runtime.preprocess import read_picture
found = {}
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        found[path.name] = read_picture(path, 24).tolist()
    except PictureFault:
        found[path.name] = "refused"  # by each Pillow in its own words
print(json.dumps(found))
"""


def seen_by(python: list[str], corpus: Path, *paths: Path) -> dict[str, object]:
    code = f"import sys; sys.path[:0] = {[str(path) for path in paths]!r}\n{SEE}"
    done = subprocess.run([*python, "-c", code, str(corpus)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, object] = json.loads(done.stdout)
    return found


def has_old_python() -> bool:
    """Whether it starts: a name on the path may stand for none, as pyenv's do."""
    path = shutil.which(f"python{OLD_PYTHON}") or "false"
    return subprocess.run([path, "-m", "pip", "-V"], capture_output=True).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif("not has_old_python()", reason="no Python 3.8 here")
@pytest.mark.parametrize("version", PILLOWS)
def test_old_pillows_see_the_same_pixels(corpus: Path, tmp_path: Path, version: str) -> None:
    old = f"python{OLD_PYTHON}"
    install = [old, "-m", "pip", "install", "-q", "--no-deps", "--only-binary=:all:", "--target"]
    packages = [f"pillow=={version}", "numpy==1.19.5"]
    subprocess.run([*install, str(tmp_path), *packages], check=True)
    runtime = tmp_path / "dfkd_edge" / "runtime"
    shutil.copytree(ROOT / "dfkd_edge" / "runtime", runtime)
    (runtime.parent / "__init__.py").touch()
    here = seen_by([sys.executable], corpus, ROOT)
    there = seen_by([old, "-I"], corpus, tmp_path)
    assert len(here) > 50
    assert {name for name in here if here[name] != there[name] and ".jpg" not in name} == set()
