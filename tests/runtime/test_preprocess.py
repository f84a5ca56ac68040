import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dfkd_edge.runtime import pictures, preprocess
from dfkd_edge.runtime.faults import Fault
from dfkd_edge.runtime.frame_check import name_mistakes
from dfkd_edge.runtime.frame_fit import Picture

SIDES_PX = (16, 64)
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def expected(side_px: int) -> NDArray[np.uint8]:
    return preprocess.resized(Image.fromarray(preprocess.test_card(side_px)), side_px)


def fault_of(seen: NDArray[np.generic], side_px: int) -> str:
    card = Picture("test_card.png", preprocess.test_card(side_px), expected(side_px))
    return name_mistakes(seen, card)


@pytest.mark.parametrize("side_px", [*SIDES_PX, 224])
def test_right_preprocessing_has_no_fault(side_px: int) -> None:
    right = expected(side_px)
    assert fault_of(right, side_px) == ""
    assert fault_of(right[None].astype(np.float32), side_px) == ""


@pytest.mark.parametrize("side_px", SIDES_PX)
def test_each_usual_fault_is_named(side_px: int) -> None:
    right, card = expected(side_px), preprocess.test_card(side_px)
    plain = preprocess.triangle_resize(card, (side_px, side_px), antialias=False).astype(np.uint8)
    box = Image.fromarray(card).resize((side_px, side_px), Image.Resampling.NEAREST)
    unit = right.astype(np.float32) / 255
    normal = (unit - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_DEVIATION)
    left = (card.shape[1] - card.shape[0]) // 2
    square = Image.fromarray(card[:, left : left + card.shape[0]])
    cropped = np.asarray(square.resize((side_px, side_px), Image.Resampling.BILINEAR))
    for seen, said in (
        (right[..., ::-1], "channels are BGR, not RGB"),
        (plain, "resized without antialiasing"),
        (np.asarray(box), "resized with nearest neighbour"),
        (cropped, "cropped instead of squeezed"),
        (right[:, ::-1], "mirrored"),
        (right.transpose(1, 0, 2), "rows and columns swapped"),
        (unit, "values are in 0 to 1, not in 0 to 255"),
        (unit * 2 - 1, "values are in -1 to 1, not in 0 to 255"),
        (normal, "values are normalised with ImageNet's mean and deviation, not in 0 to 255"),
        (right.transpose(2, 0, 1), "channels come first (NCHW), not last (NHWC)"),
    ):
        assert fault_of(seen, side_px) == said


def test_faults_are_told_together_and_so_are_a_wrong_shape_and_an_unknown_one() -> None:
    seen = expected(64)[..., ::-1].astype(np.float32) / 255
    assert fault_of(seen.transpose(2, 0, 1), 64) == (
        "channels come first (NCHW), not last (NHWC); channels are BGR, not RGB; "
        "values are in 0 to 1, not in 0 to 255"
    )
    small = preprocess.resized(Image.fromarray(preprocess.test_card(64)), 32)
    assert fault_of(small, 64) == "size is 32 x 32, not 64 x 64"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert "for a reason not known here" in fault_of(noise, 64)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_picture_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(Fault, match=r"picture cannot be read.*a\.png"):
        preprocess.read_picture(path, 16)


def test_a_picture_is_what_its_content_says_and_none_starts_a_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    path = tmp_path / "eps.jpg"
    path.write_text(
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n",
        encoding="utf-8",
    )
    with pytest.raises(Fault, match="cannot be read"):
        preprocess.read_picture(path, 16)
    assert not (tmp_path / "started").exists()
    Image.new("RGB", (9, 9), "red").save(tmp_path / "a.gif")
    renamed = (tmp_path / "a.gif").rename(tmp_path / "a.png")
    assert preprocess.read_picture(renamed, 16).shape == (16, 16, 3)


@pytest.mark.parametrize("has_formats", [True, False], ids=["Pillow now", "Pillow before 8"])
def test_old_and_new_pillow_refuse_the_same_formats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_formats: bool
) -> None:
    if not has_formats:
        new_open = Image.open
        monkeypatch.setattr(Image, "open", lambda stream: new_open(stream))
    for suffix, is_known in ((".jpg", True), (".tga", False), (".png", True), (".ico", False)):
        path = tmp_path / f"a{suffix}"
        Image.new("RGB", (32, 32), "red").save(path)
        renamed = path.rename(tmp_path / f"{suffix[1:]}.jpg")
        if is_known:
            assert preprocess.read_picture(renamed, 16).shape == (16, 16, 3)
        else:
            with pytest.raises(Fault, match="cannot be read"):
                preprocess.read_picture(renamed, 16)


@pytest.mark.parametrize(
    ("size", "mode", "said"),
    [
        ((13_000, 13_000), "L", "13000 x 13000 pixels take 1,289 MiB, 1,024 MiB are given"),
        ((8_000, 8_000), "LA", "8000 x 8000 pixels take 1,220 MiB"),
        ((14_000, 14_000), "1", "is too large: "),
        ((20_000, 20_000), "1", "is too large: image size"),
    ],
)
def test_a_small_file_of_a_huge_picture_is_refused_with_its_size_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], mode: str, said: str
) -> None:
    monkeypatch.setattr(pictures, "free_bytes", lambda: 64 << 30)
    path = tmp_path / "bomb.png"
    with monkeypatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", None)
        png_of(size, mode, path)
    with pytest.raises(Fault, match=said):
        preprocess.read_picture(path, 16)


def png_of(size: tuple[int, int], mode: str, path: Path) -> None:
    """Write a header of a PNG, which is all that is read of it."""
    colour = {"1": (1, 0), "L": (8, 0), "LA": (8, 4)}[mode]
    header = struct.pack(">IIBBBBB", *size, *colour, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks
        )
    )


def test_a_pipe_named_like_a_picture_is_a_fault_and_nobody_waits(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(Fault, match="is not a plain file"):
        preprocess.read_picture(tmp_path / "a.jpg", 16)


def test_a_picture_may_take_half_of_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (1_000, 1_000)).save(tmp_path / "a.png")
    monkeypatch.setattr(pictures, "free_bytes", lambda: 17_000_000)
    assert preprocess.read_picture(tmp_path / "a.png", 16).shape == (16, 16, 3)
    monkeypatch.setattr(pictures, "free_bytes", lambda: 15_000_000)
    with pytest.raises(Fault, match="is too large"):
        preprocess.read_picture(tmp_path / "a.png", 16)
