"""Reads what a pipeline dumped: an array of numpy, or plain bytes whose number tells their layout.

Shape suffixes: H rows, W columns, C = 3 channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dfkd_edge.runtime.faults import UsageFault
from dfkd_edge.runtime.golden import UNREADABLE
from dfkd_edge.runtime.safe_files import reading

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_FRAME_BYTES = 128 << 20  # Above any frame: of a long dump, no more is read
NUMPY_MAGIC = b"\x93NUMPY"
VIDEO_SIZES = ((640, 360), (640, 480), (1280, 720), (1920, 1080), (3840, 2160))  # Width, height
PITCHES = (1, 64, 256, 512)  # What a row of a surface may be filled up to, in bytes (ours)
MAX_SIDE_PX = 8_192


class Format(NamedTuple):
    """How the bytes of a frame follow each other."""

    dtype: str
    layout: str  # NCHW, NHWC or NV12
    channels: int
    half_bytes: int  # A pixel: NV12 has three

    def __str__(self) -> str:
        """Say `float32 NCHW`, `uint8 RGBA` or `NV12`."""
        if self.layout == "NV12":
            return self.layout
        return f"{self.dtype} {'RGBA' if self.channels == 4 else self.layout}"


FORMATS = {
    "float32-nchw": Format("float32", "NCHW", 3, 24),
    "float32-nhwc": Format("float32", "NHWC", 3, 24),
    "uint8-nhwc": Format("uint8", "NHWC", 3, 6),
    "uint8-nchw": Format("uint8", "NCHW", 3, 6),
    "rgba": Format("uint8", "NHWC", 4, 8),
    "nv12": Format("uint8", "NV12", 1, 3),
}


class Size(NamedTuple):
    """Width and height of a frame, in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        """Say `224 x 224`."""
        return f"{self.width} x {self.height}"


@dataclass(frozen=True, eq=False)
class Reading:
    """One way to read a dump."""

    format: Format
    size: Size
    values: NDArray[Any]
    """[H, W, C], or luma and chroma of NV12 below each other, [H * 3 / 2, W]."""
    num_frames: int = 1  # In the dump; the first is read
    is_raw: bool = True  # As it is fed; a program may still turn an array into another type

    def is_whole(self, side_px: int) -> bool:
        """Whether it is one frame of the network's size."""
        return self.num_frames == 1 and self.size == (side_px, side_px)

    def __str__(self) -> str:
        """Say how it was read."""
        more = f", the first of {self.num_frames}" if self.num_frames > 1 else ""
        return f"{self.format}, {self.size}{more}"


def parse_size(text: str) -> Size:
    """Read `1280x720`.

    Raises:
        ValueError: it is no size of a frame.
    """
    width, _, height = text.lower().partition("x")
    size = Size(int(width), int(height))
    if not all(1 <= side <= MAX_SIDE_PX for side in size):
        raise ValueError(text)
    return size


def read_dump(path: Path, side_px: int, format_name: str, size: Size | None) -> list[Reading]:
    """Read a dump in every way that its number of bytes allows, the likely ones first.

    Args:
        path: of the dump: what numpy.save wrote, or plain bytes.
        side_px: of the network's input.
        format_name: a key of FORMATS; empty tries them all.
        size: of the frame; None tries the network's, the test card's and those of videos.

    Raises:
        UsageFault: it cannot be read, is too large, or fits nothing.
    """
    where = f"--frame {path}"
    try:
        num_bytes = path.stat().st_size
        with reading(path) as stream:
            raw = stream.read(MAX_FRAME_BYTES)
    except OSError as error:
        raise UsageFault(f"cannot be read: {error.strerror}", where) from error
    if raw.startswith(NUMPY_MAGIC):
        if num_bytes > MAX_FRAME_BYTES:
            raise UsageFault("array is too large for one frame", where)
        found = readings_of_array(_array(path, where), where)
    else:
        formats = [FORMATS[format_name]] if format_name else list(FORMATS.values())
        found = [one for kind in formats for one in _of_bytes(raw, num_bytes, kind, side_px, size)]
    if not found:
        raise UsageFault(f"{num_bytes:,} bytes fit no frame", where, _fitting(side_px))
    return found


def readings_of_array(array: NDArray[Any], where: str) -> list[Reading]:
    """Read an array as its shape says.

    Raises:
        UsageFault: its shape is that of no frame.
    """
    num_frames = len(array) if array.ndim == 4 else 1
    frame = array[0] if array.ndim == 4 and num_frames else array
    kind = FORMATS["uint8-nhwc"]._replace(dtype=str(array.dtype))
    if frame.ndim == 3 and frame.shape[0] == 3 and frame.shape[2] not in (3, 4):
        frame, kind = frame.transpose(1, 2, 0), kind._replace(layout="NCHW")
    if frame.ndim == 3 and frame.shape[2] in (3, 4) and frame.size:
        kind = kind._replace(channels=frame.shape[2])
        height, width = frame.shape[:2]
        return [Reading(kind, Size(width, height), frame[..., :3], num_frames, False)]
    if frame.ndim == 2 and frame.dtype == np.uint8 and frame.size and not frame.shape[0] % 3:
        size = Size(frame.shape[1], frame.shape[0] * 2 // 3)
        return [Reading(FORMATS["nv12"], size, frame, num_frames, False)]
    raise UsageFault(f"an array of shape {list(array.shape)} is no frame", where)


def _fitting(side_px: int) -> str:
    pixels = side_px * side_px
    shown = ", ".join(
        f"{pixels * kind.half_bytes // 2:,} are {name}" for name, kind in FORMATS.items()
    )
    return f"of {side_px} x {side_px} {shown}; --frame-size WxH names another size"


def _array(path: Path, where: str) -> NDArray[Any]:
    try:
        with reading(path) as stream:
            array = np.load(stream, allow_pickle=False)  # a pickle may run any code
    except UNREADABLE as error:
        raise UsageFault("no .npy file", where, "write it with numpy.save") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "uif":
        raise UsageFault("no array of numbers", where)
    return array


def _of_bytes(
    raw: bytes, num_bytes: int, kind: Format, side_px: int, size: Size | None
) -> Iterator[Reading]:
    dtype = np.dtype("<f4") if kind.dtype == "float32" else np.dtype("u1")
    for found, num_frames, pitch in _sizes(num_bytes, kind, side_px, size):
        rows = found.height * 3 // 2 if kind.layout == "NV12" else found.height
        count = rows * (pitch or found.width * kind.channels)
        if count * dtype.itemsize > len(raw):
            continue
        flat = np.frombuffer(raw, dtype, count)
        if kind.layout == "NV12":
            values = flat.reshape(rows, pitch)[:, : found.width]
        elif kind.layout == "NCHW":
            values = flat.reshape(kind.channels, rows, found.width).transpose(1, 2, 0)
        else:
            values = flat.reshape(rows, found.width, kind.channels)[..., :3]
        yield Reading(kind, found, values, num_frames)


def _sizes(
    num_bytes: int, kind: Format, side_px: int, size: Size | None
) -> Iterator[tuple[Size, int, int]]:
    """Yield sizes, how many frames of it the bytes are, and bytes a row where rows are filled up.

    Several frames are of the network's size, or of one that is named: a batch, or what nvinfer
    appends to its dump with each picture.
    """
    network = Size(side_px, side_px)
    known = (
        [size] if size else [network, Size(4 * side_px, 3 * side_px), *map(Size._make, VIDEO_SIZES)]
    )
    side = math.isqrt(num_bytes * 2 // kind.half_bytes)
    if not size and side not in (0, side_px) and side <= MAX_SIDE_PX:
        known.append(Size(side, side))
    for one in known:
        if kind.layout == "NV12":
            if not (one.width % 2 or one.height % 2):
                yield from _filled_up(num_bytes, one)
            continue
        num_frames, left = divmod(num_bytes * 2, one.width * one.height * kind.half_bytes)
        if not left and (num_frames == 1 or (num_frames and one in (size, network))):
            yield one, num_frames, 0


def _filled_up(num_bytes: int, size: Size) -> Iterator[tuple[Size, int, int]]:
    for pitch in sorted({-(-size.width // step) * step for step in PITCHES}):
        if pitch * size.height * 3 // 2 == num_bytes:
            yield size, 1, pitch
