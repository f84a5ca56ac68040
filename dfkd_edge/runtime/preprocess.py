"""The contract between training and device: how a picture becomes uint8 NHWC, and what went wrong.

Shape suffixes: N images, H rows, W columns, C = 3 channels (RGB), S the model's side.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dfkd_edge.runtime.picture_heads import READ_AS
from dfkd_edge.runtime.pictures import open_upright, pillow

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONTRACT_VERSION = 2  # Of what is said of pictures; 1 knew no orientation and clipped what is deep
IMAGENET = ("ImageNet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ("CLIP", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def contract(side_px: int, batch: tuple[int, int, int], dtype: str = "uint8") -> dict[str, Any]:
    """Write down what `read_picture` does, for preprocess.json.

    `dtype` is what the graph takes: `uint8`, or `float32` with the very same values.
    """
    return {
        "input": {
            "name": "image",
            "dtype": dtype,
            "layout": "NHWC",
            "channels": "RGB",
            "range": [0, 255],
            "height": side_px,
            "width": side_px,
        },
        "resize": {
            "aspect": "squeezed to the square, nothing is cropped or padded",
            "filter": "bilinear (triangle)",
            "antialias": True,
            "reference": "Pillow Image.resize BILINEAR, first the width and then the height",
        },
        "version": CONTRACT_VERSION,
        "formats": f"{READ_AS}, by content",
        "orientation": "upright: turned as EXIF says, before it is resized",
        "depth": "16 bits: the high byte; TIFF of 9 to 15: the 8 high bits; greyscale in floats: "
        "0 to 1, or else 0 to 255, rounded; of any other range refused",
        "colour": "RGB without its colour profile; greyscale repeated; CMYK by the product of "
        "what ink and black leave; palettes looked up; Lab of 8 bits under D50 as sRGB",
        "transparency": "composed over white",
        "animation": "the first picture, as of several pages",
        "normalisation": f"inside the graph: feed plain {dtype} of 0 to 255",
        "outputs": {
            "logits": "float32 [N, classes]",
            "probabilities": "float32 [N, classes]",
            "embedding": "float32 [N, width], unit rows",
        },
        "batch": list(batch),
    }


def read_picture(path: Path, side_px: int) -> NDArray[np.uint8]:
    """Read one picture as RGB [S, S, C], squeezed to a square; transparency lies on white.

    Raises:
        LackingFault: Pillow is not installed.
        PictureFault: it cannot be read.
    """
    return resized(open_upright(path), side_px)


def resized(picture: Any, side_px: int) -> NDArray[np.uint8]:
    """Resize a PIL picture in RGB as the student was trained."""
    image_module = pillow()
    bilinear = getattr(image_module, "Resampling", image_module).BILINEAR  # Pillow < 9.1: no enum
    # one pass, then the other: Pillow 13 begins with the rows of a high picture, others never do
    narrow = picture.resize((side_px, picture.size[1]), bilinear)
    return np.array(narrow.resize((side_px, side_px), bilinear), dtype=np.uint8)


def resized_images(image_NHWC: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """Resize a stack of RGB images in the same way."""
    if image_NHWC.shape[1:3] == (side_px, side_px):
        return image_NHWC
    image_module = pillow()
    return np.stack([resized(image_module.fromarray(image), side_px) for image in image_NHWC])


def min_usual_max(batch: tuple[int, ...]) -> tuple[int, int, int]:
    """Smallest, usual and largest batch of one, two or three numbers and more."""
    ordered = sorted(batch)
    return ordered[0], ordered[len(ordered) // 2], ordered[-1]


def test_card(side_px: int) -> NDArray[np.uint8]:
    """Draw a picture [H, W, C] on which every wrong preprocessing shows.

    Fine rings alias without antialiasing, a colour wedge shows swapped channels, the uneven sides
    show crops and the gradients show flips.
    """
    height, width = side_px * 3, side_px * 4
    row_H1 = np.linspace(0.0, 1.0, height)[:, None]
    column_1W = np.linspace(0.0, 1.0, width)[None, :]
    rings_HW = 0.5 + 0.5 * np.cos(width * 0.6 * ((row_H1 - 0.3) ** 2 + (column_1W - 0.4) ** 2))
    checks_HW = (np.arange(height)[:, None] + np.arange(width)[None, :]) % 2
    red_HW = 0.75 * column_1W + 0.25 * rings_HW
    green_HW = 0.5 * rings_HW + 0.5 * row_H1 * (1 - column_1W)
    blue_HW = 0.3 * (1 - row_H1) + 0.3 * checks_HW
    card_HWC = np.stack([red_HW, green_HW, blue_HW], axis=-1)
    rounded: NDArray[np.uint8] = np.round(np.clip(card_HWC, 0, 1) * 255).astype(np.uint8)
    return rounded


def triangle_resize(
    picture_HWC: NDArray[Any], size: tuple[int, int], antialias: bool
) -> NDArray[np.float64]:
    """Resize to height and width in plain numpy, with or without antialiasing: to diagnose."""
    height, width = picture_HWC.shape[:2]
    rows_TH = _triangle_weights(height, size[0], antialias)
    columns_TW = _triangle_weights(width, size[1], antialias)
    low = rows_TH @ picture_HWC.reshape(height, width * 3).astype(np.float64)
    return np.tensordot(low.reshape(size[0], width, 3), columns_TW, (1, 1)).transpose(0, 2, 1)


def _triangle_weights(num_from: int, num_to: int, antialias: bool) -> NDArray[np.float64]:
    scale = num_from / num_to
    reach = max(scale, 1.0) if antialias else 1.0  # antialiasing widens the filter with the scale
    centre_T1 = (np.arange(num_to)[:, None] + 0.5) * scale  # pixel centres, as Pillow has them
    distance_TF = np.abs(np.arange(num_from)[None, :] + 0.5 - centre_T1)
    weight_TF = np.maximum(0.0, 1.0 - distance_TF / reach)
    return np.asarray(weight_TF / weight_TF.sum(axis=1, keepdims=True))
