from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dfkd_edge.runtime import preprocess
from dfkd_edge.runtime.faults import Fault

SIDES_PX = (16, 64)
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def expected(side_px: int) -> NDArray[np.uint8]:
    return preprocess.resized(Image.fromarray(preprocess.test_card(side_px)), side_px)


def fault_of(seen: NDArray[np.generic], side_px: int) -> str:
    return preprocess.name_fault(seen, preprocess.test_card(side_px), expected(side_px))


@pytest.mark.parametrize("side_px", [*SIDES_PX, 224])
def test_right_preprocessing_has_no_fault(side_px: int) -> None:
    right = expected(side_px)
    assert fault_of(right, side_px) == ""
    assert fault_of(right[None].astype(np.float32), side_px) == ""


@pytest.mark.parametrize("side_px", SIDES_PX)
def test_each_usual_fault_is_named(side_px: int) -> None:
    right, card = expected(side_px), preprocess.test_card(side_px)
    plain = preprocess.triangle_resize(card, side_px, antialias=False).astype(np.uint8)
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
        (unit, "values are in 0 to 1, not 0 to 255"),
        (unit * 2 - 1, "values are in -1 to 1, not 0 to 255"),
        (normal, "values are normalised with ImageNet's mean and deviation"),
        (right.transpose(2, 0, 1), "channels come first (NCHW), not last (NHWC)"),
    ):
        assert fault_of(seen, side_px) == said


def test_faults_are_told_together_and_so_are_a_wrong_shape_and_an_unknown_one() -> None:
    seen = expected(64)[..., ::-1].astype(np.float32) / 255
    assert fault_of(seen.transpose(2, 0, 1), 64) == (
        "channels come first (NCHW), not last (NHWC); channels are BGR, not RGB; "
        "values are in 0 to 1, not 0 to 255"
    )
    assert fault_of(expected(32), 64) == "shape is [32, 32, 3], not [64, 64, 3]"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert "for a reason not known here" in fault_of(noise, 64)


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
def test_what_is_no_picture_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(Fault, match=r"picture cannot be read.*a\.png"):
        preprocess.read_picture(path, 16)
