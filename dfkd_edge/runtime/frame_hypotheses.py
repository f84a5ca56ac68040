"""What pipelines do to a picture on its way to the network: the right way and the usual mistakes.

Shape suffixes: N pixels, H rows, W columns, C = 3 channels (RGB), S the network's side.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dfkd_edge.runtime.preprocess import CLIP, IMAGENET, triangle_resize

if TYPE_CHECKING:
    from numpy.typing import NDArray

FILLS = (0.0, 114.0, 127.5)  # Black, the grey of YOLO, the middle
MARGIN = 224 / 256
"""Of the crop that torchvision's usual transform makes, after it has resized."""
LUMA = {"BT.601": (0.299, 0.114), "BT.709": (0.2126, 0.0722)}  # Weights of red and blue


class Mistake(NamedTuple):
    """What went wrong, in words, and the kinds of it."""

    what: str
    kinds: tuple[str, ...]  # What mends it: keys of `mends` in a runtime's profile


class View(NamedTuple):
    """A picture as a network may see it."""

    levels: NDArray[Any]  # 0 to 255, [H, W, C] or some of its pixels [N, C]
    mistakes: tuple[Mistake, ...] = ()


class ValueMap(NamedTuple):
    """How levels become values, channel by channel: value = gain * level + shift."""

    words: str  # Of the values: "are in 0 to 1"
    gain_C: NDArray[np.float64]
    shift_C: NDArray[np.float64]


def _mapping(words: str, gain: Any, shift: Any = 0.0) -> ValueMap:
    return ValueMap(words, np.broadcast_to(gain, 3) * 1.0, np.broadcast_to(shift, 3) * 1.0)


def _normalised(name: str, mean: tuple[float, ...], deviation: tuple[float, ...]) -> list[ValueMap]:
    mean_C, deviation_C = np.array(mean), np.array(deviation)
    said = f"normalised with {name}'s mean and deviation"
    shift_C = -mean_C / deviation_C
    return [
        _mapping(f"are {said}", 1 / (255 * deviation_C), shift_C),
        _mapping(f"are {said} without 1/255 before", 1 / deviation_C, shift_C),
        _mapping(f"are {said} after 1/255 twice", 1 / (255**2 * deviation_C), shift_C),
        _mapping(f"have {name}'s mean taken off", 1.0, -255 * mean_C),
        _mapping(f"are in 0 to 1 with {name}'s mean taken off", 1 / 255, -mean_C),
    ]


LEVELS = _mapping("are in 0 to 255", 1.0)
MAPPINGS = (
    LEVELS,
    _mapping("are in 0 to 1", 1 / 255),
    _mapping("are in 0 to 1/255: scaled by 1/255 twice", 1 / 255**2),
    _mapping("are in -1 to 1", 1 / 127.5, -1.0),
    _mapping("are in -128 to 127", 1.0, -128.0),
    *_normalised(*IMAGENET),
    *_normalised(*CLIP),
)
WANTED = {
    "0 to 255": LEVELS,
    "(x / 255 - mean) / deviation, those of ImageNet": _normalised(*IMAGENET)[0],
}
"""By what `golden/answer.json` says of the values."""


def views(
    source_HWC: NDArray[np.uint8], right_SSC: NDArray[Any] | None, height: int, width: int
) -> Iterator[View]:
    """Yield the views of a picture that resizing, cropping and turning give, the right one first.

    Args:
        source_HWC: the picture as it lies in its file.
        right_SSC: what the network must see; None where the frame has another size.
        height: of the frame.
        width: of the frame.
    """
    if right_SSC is None:
        right_SSC = triangle_resize(source_HWC, (height, width), antialias=True)
    yield View(right_SSC)
    yield View(right_SSC[:, ::-1], (Mistake("mirrored", ("flip",)),))
    yield View(right_SSC[::-1], (Mistake("upside down", ("flip",)),))
    if height == width:
        swapped = Mistake("rows and columns swapped", ("flip",))
        yield View(right_SSC.transpose(1, 0, 2), (swapped,))
    if source_HWC.shape[:2] != (height, width):
        yield from _resized(source_HWC, height, width)
    if source_HWC.shape[0] * width != source_HWC.shape[1] * height:
        yield from _other_aspects(source_HWC, height, width)


def _resized(source_HWC: NDArray[np.uint8], height: int, width: int) -> Iterator[View]:
    yield View(_averaged(source_HWC, height, width))  # another filter, and as good
    plain = triangle_resize(source_HWC, (height, width), antialias=False)
    yield View(plain, (Mistake("resized without antialiasing", ("filter",)),))
    rows, columns = (
        ((np.arange(num) + 0.5) / num * of).astype(int)
        for num, of in zip((height, width), source_HWC.shape)
    )
    nearest = source_HWC[rows][:, columns].astype(np.float64)
    yield View(nearest, (Mistake("resized with nearest neighbour", ("filter",)),))


def _averaged(source_HWC: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float64]:
    """Resize by the mean of the area below each pixel, as INTER_AREA does."""
    weights = []
    for num_from, num_to in zip(source_HWC.shape, (height, width)):
        edge_T1 = np.arange(num_to + 1)[:, None] * (num_from / num_to)
        left_F = np.arange(num_from)[None, :]
        covered_TF = np.minimum(edge_T1[1:], left_F + 1) - np.maximum(edge_T1[:-1], left_F)
        weights.append(np.maximum(covered_TF, 0) * (num_to / num_from))
    low = np.tensordot(weights[0], source_HWC.astype(np.float64), 1)
    return np.tensordot(low, weights[1], (1, 1)).transpose(0, 2, 1)


def _other_aspects(source_HWC: NDArray[np.uint8], height: int, width: int) -> Iterator[View]:
    """Yield crops and letterboxes, for a picture that is wider or higher than the frame."""
    rows, columns = source_HWC.shape[:2]
    for margin in (1.0, MARGIN):
        cut = min(rows / height, columns / width) * margin
        size = round(cut * height), round(cut * width)
        top, left = (rows - size[0]) // 2, (columns - size[1]) // 2
        part_HWC = source_HWC[top : top + size[0], left : left + size[1]]
        level_HWC = triangle_resize(part_HWC, (height, width), antialias=True)
        yield View(level_HWC, (Mistake("cropped instead of squeezed", ("aspect",)),))
    fit = min(height / rows, width / columns)
    inner = max(1, round(rows * fit)), max(1, round(columns * fit))
    small_HWC = triangle_resize(source_HWC, inner, antialias=True)
    for what, share in (("padded", 0.5), ("padded at the end", 0.0)):
        top, left = (round((of - size) * share) for of, size in zip((height, width), inner))
        for fill in FILLS:
            level_HWC = np.full((height, width, 3), fill)
            level_HWC[top : top + inner[0], left : left + inner[1]] = small_HWC
            yield View(level_HWC, (Mistake(f"{what} instead of squeezed", ("aspect",)),))


def misread_video(level_NC: NDArray[Any]) -> Iterator[View]:
    """Yield pixels after their range or their colours were misread as video; as they are, first."""
    yield View(level_NC)
    flat = "limited range (16 to 235) was taken for full: the picture is flat"
    yield View(16 + level_NC * (219 / 255), (Mistake(flat, ("video",)),))
    hard_NC = np.clip((level_NC - 16) * (255 / 219), 0, 255)
    hard = "full range was taken for limited (16 to 235): dark and bright are cut off"
    yield View(hard_NC, (Mistake(hard, ("video",)),))
    for made, read in (("BT.709", "BT.601"), ("BT.601", "BT.709")):
        mixed_CC = np.linalg.inv(luma_and_chroma(read)) @ luma_and_chroma(made)
        wrong_NC = np.clip(level_NC @ mixed_CC.T, 0, 255)
        yield View(wrong_NC, (Mistake(f"colours of {made} were taken for {read}", ("video",)),))


def luma_and_chroma(matrix: str) -> NDArray[np.float64]:
    """Return what makes luma and both differences of colour, -0.5 to 0.5, of RGB."""
    red, blue = LUMA[matrix]
    luma_C = np.array([red, 1 - red - blue, blue])
    blue_C = (np.array([0, 0, 1]) - luma_C) / (2 - 2 * blue)
    red_C = (np.array([1, 0, 0]) - luma_C) / (2 - 2 * red)
    return np.stack([luma_C, blue_C, red_C])


def halved_colour(source_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Make a picture what NV12 leaves of it: one colour to four pixels."""
    height, width = (side // 2 * 2 for side in source_HWC.shape[:2])
    to_CC = luma_and_chroma("BT.601")
    parts_HWC = source_HWC[:height, :width] @ to_CC.T
    parts_HWC[..., 1:] = quarters(parts_HWC[..., 1:]).repeat(2, 0).repeat(2, 1)
    made_HWC = source_HWC.copy()
    back_HWC = np.clip(parts_HWC @ np.linalg.inv(to_CC).T, 0, 255)
    made_HWC[:height, :width] = np.round(back_HWC).astype(np.uint8)
    return made_HWC


def quarters(level_HWC: NDArray[Any]) -> NDArray[Any]:
    """Average each two by two pixels; sides are even."""
    height, width, num = level_HWC.shape
    averaged: NDArray[Any] = level_HWC.reshape(height // 2, 2, width // 2, 2, num).mean((1, 3))
    return averaged
