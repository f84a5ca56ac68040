"""What people give to `predict`: addresses, and paths on standard input or pictures."""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from dfkd_edge.bundles.sources import Source, find_sources, sources_of_input
from dfkd_edge.runtime.bundle_files import Bundle
from tests.fixtures.command import call
from tests.fixtures.files import write_picture


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://cam:554/live/1", "rtsp://cam:554/live/1"),
        ("rtsp://u:secret@cam/live", "rtsp://cam/live"),
        ("rtsp://u:se#cret@cam/live", "rtsp://cam/live"),
        ("rtsp://u:se/cret@cam/live", "rtsp://cam/live"),
        ("rtsp://u:s?cret@cam/live", "rtsp://cam/live"),
        ("rtsp://cam/live?user=a&password=secret", "rtsp://cam/live"),
        ("rtsp://cam:554/user=admin_password=secret_channel=1.sdp", "rtsp://cam:554/..."),
        ("rtsp://[::1", "rtsp://[::1"),
    ],
)
def test_no_password_of_a_camera_is_shown(url: str, shown: str, tiny_bundle: Bundle) -> None:
    (source,), _ = find_sources([url])
    assert (source.path, source.name) == (url, shown)
    code, _, errors = call("predict", url, tiny_bundle.folder)
    assert (code, len(errors.splitlines())) == (2, 1)
    assert f"no bundle, which the first argument must be ({shown})" in errors


@pytest.mark.parametrize(
    ("raw", "names"),
    [
        (b"cat\nb.png\n", ["cat", "b.png"]),
        (b"BMW/1.png\nb.png\n", ["BMW/1.png", "b.png"]),
        (b"BM\nRIFF\nb.png", ["BM", "RIFF", "b.png"]),
        (b".\0BMW/1.png\0", ["BM", "BMW/1.png", "RIFF", "b.png", "cat", "BMW/1.png"]),
    ],
)
def test_paths_that_begin_like_pictures_are_paths(
    raw: bytes, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("cat", "BM", "RIFF", "b.png", "BMW/1.png"):
        Path(name).parent.mkdir(exist_ok=True)
        write_picture(Path("a.png"), 0).rename(name)
    found = [each if isinstance(each, str) else each.name for each in read_input(raw)]
    assert sorted(Path(name).as_posix() for name in found) == sorted(names)


def read_input(raw: bytes) -> Iterator[Source | str]:
    return sources_of_input(io.BytesIO(raw))


def test_a_bitmap_on_standard_input_is_a_picture(tmp_path: Path) -> None:
    for size in range(1, 40):  # the size of a file may hold a line feed
        bitmap = io.BytesIO()
        Image.new("RGB", (size, 7)).save(bitmap, "BMP")
        (source,) = read_input(bitmap.getvalue())
        assert isinstance(source, Source)
        assert source.name == "-"


def test_addresses_are_told_apart_by_how_they_look(tmp_path: Path) -> None:
    write_picture(tmp_path / "7.png", 0).rename(tmp_path / "7")
    (tmp_path / "a b.mp4").write_bytes(b"")
    with contextlib.chdir(tmp_path):
        given = ["0", "7", "RTSP://a:b@c/d", "file://" + str(tmp_path / "a%20b.mp4"), os.devnull]
        sources, skipped = find_sources(given)
    kinds = ["camera", "picture", "stream", "video", "camera"]
    assert [source.kind for source in sources] == kinds
    assert [source.name for source in sources][:3] == ["camera 0", "7", "rtsp://c/d"]
    assert sources[3].path == str(tmp_path / "a b.mp4")
    assert skipped == []
