"""Any byte in a name, any encoding of a stream: one line, whole JSON, never a traceback."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dfkd_edge.files import atomic_write, content_hash
from dfkd_edge.pictures.real import shared_picture
from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.runtime.plain_text import unexpected
from tests.fixtures.files import write_picture

ENCODINGS = ("ascii", "cp1252", "utf-8")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Labelled pictures, one of them broken, under names that are Latin-1 or Chinese."""
    folder = tmp_path / "data" / os.fsdecode(b"caf\xe9") / "dog"
    write_picture(folder / os.fsdecode(b"no\xebl.png"), 0)
    write_picture(folder / "犬.png", 1)
    (folder / os.fsdecode(b"br\xfbl\xe9.jpg")).write_bytes(b"no picture")
    return tmp_path / "data"


def run(*words: object, encoding: str = "utf-8") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, encoding=encoding, env=environment
    )


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_check_pyz_writes_any_name_to_any_stream(
    tiny_bundle: Bundle, data: Path, encoding: str
) -> None:
    archive = tiny_bundle.folder / "check.pyz"
    done = run(archive, "--duration", 0, "--json", "--data", data, encoding=encoding)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    printed = json.loads(done.stdout)
    kept = json.loads((tiny_bundle.folder / "result.json").read_text(encoding="utf-8"))
    for document in (printed, kept):
        (score,) = document["models"]["int8"]["data"]["domains"].values()
        assert score["num_images"] == 2
        assert "none of JPEG" in document["models"]["int8"]["data"]["skipped"][0]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_predict_writes_any_name_to_any_stream(
    tiny_bundle: Bundle, data: Path, encoding: str
) -> None:
    words = ("-m", "dfkd_edge", "predict", tiny_bundle.folder, data)
    done = run(*words, "--json", encoding=encoding)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    document = json.loads(done.stdout)
    assert len(document["pictures"]) == 2
    assert {row["is_known"] for row in document["pictures"]} <= {True, False}
    shown = run(*words, encoding=encoding)
    assert (shown.returncode, "Traceback" in shown.stderr) == (1, False), shown.stderr


@pytest.mark.parametrize("words", ["cache info --json", "targets list"])
def test_a_reader_that_leaves_ends_the_command_without_a_word(words: str) -> None:
    command = [sys.executable, "-m", "dfkd_edge", *words.split()]
    ours, theirs = os.pipe()
    os.close(ours)
    done = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, text=True)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (1, "")


def test_what_nobody_expected_is_one_line_with_its_place() -> None:
    try:
        dict[str, int]()["a\nb"]
    except KeyError as error:
        line = unexpected(error)
    assert line.startswith(r"unexpected KeyError: 'a\nb' (")
    assert "test_streams.py, line" in line
    assert "\n" not in line


def test_names_that_are_no_utf_8_are_hashed_and_written(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    assert content_hash(name) != content_hash("cafe")
    atomic_write(tmp_path / "a.json", json.dumps({"file": name}, ensure_ascii=False))
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"file": name}


def test_a_shared_picture_is_found_through_links_and_under_other_names(tmp_path: Path) -> None:
    few = write_picture(tmp_path / "few" / "dog" / "a.png", 0)
    (tmp_path / "data").mkdir()
    assert shared_picture([few], tmp_path / "data") is None
    (tmp_path / "data" / "hund").symlink_to(few.parent, target_is_directory=True)
    assert shared_picture([few], tmp_path / "data") == (few, tmp_path / "data" / "hund" / "a.png")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "b.png").write_bytes(few.read_bytes())
    found = shared_picture([few], tmp_path / "copy")
    assert found == (few, tmp_path / "copy" / "b.png")


def test_files_of_macos_and_storage_boxes_are_no_pictures(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    write_picture(root / "dog" / "a.png", 0)
    for name in ("dog/._a.png", "dog/@eaDir/a.png/SYNOPHOTO_THUMB_S.png", "__MACOSX/dog/._a.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"\0\5\x16\7")
    done = run("-m", "dfkd_edge", "predict", tiny_bundle.folder, root, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads(done.stdout)["pictures"]) == 1
