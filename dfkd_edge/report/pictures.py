"""The contact sheet: one kept surrogate image of every class in every style, as data URIs.

Shape suffixes: H rows, W columns, C = 3 channels (RGB).
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dfkd_edge.artifacts import load_tensors
from dfkd_edge.runs.surrogates import selection_path

MAX_CLASSES, MAX_STYLES = 20, 8
MAX_SIDE_PX = 160
JPEG_QUALITY = 82


@dataclass(frozen=True, slots=True)
class Picture:
    """One image of the sheet."""

    uri: str
    caption: str
    is_recognised: bool
    """Whether the teacher sees the class that was asked for; a stand-in is kept all the same."""


@dataclass(frozen=True, slots=True)
class PictureRow:
    """The images of one class, in the order of the styles; None where there is none."""

    name: str
    pictures: tuple[Picture | None, ...]


@dataclass(frozen=True, slots=True)
class ContactSheet:
    """Classes by styles."""

    styles: tuple[str, ...]
    rows: tuple[PictureRow, ...]

    def legend(self) -> str:
        """Say what its marks mean, of those that it has."""
        pictures = [picture for row in self.rows for picture in row.pictures]
        marks = ["A dashed frame: a stand-in."] * any(p and not p.is_recognised for p in pictures)
        marks += ["A dash: no image of that class and style was kept."] * (None in pictures)
        return " ".join(marks)


@dataclass(frozen=True, slots=True)
class _Found:
    """An image for a place of the sheet."""

    image_HWC: NDArray[np.uint8]
    is_recognised: bool
    is_drawn: bool


Chosen = dict[tuple[int, int], _Found]
"""Class and style -> the image that stands for them."""


def contact_sheet(
    folder: Path, class_names: tuple[str, ...], style_labels: tuple[str, ...]
) -> ContactSheet:
    """Pick the first kept image of each class and style that is recognised, else the first kept.

    Shards are read one at a time, and only until every place has a recognised image.

    Raises:
        ArtifactError: a shard is damaged.
    """
    num_classes, num_styles = min(len(class_names), MAX_CLASSES), min(len(style_labels), MAX_STYLES)
    chosen: Chosen = {}
    keep, start = _selection(folder), 0
    for path in sorted(folder.glob("shard-*.safetensors")):
        shard = load_tensors(path)
        num = len(shard["is_recognised"])
        kept = shard["is_recognised"] if keep is None else keep[start : start + num]
        _collect(shard, kept, (num_classes, num_styles), chosen)
        start += num
        if sum(found.is_recognised for found in chosen.values()) == num_classes * num_styles:
            break
    rows = []
    for label in range(num_classes):
        places: list[Picture | None] = []
        for style in range(num_styles):
            found = chosen.get((label, style))
            if found is None:
                places.append(None)
                continue
            origin = "of a drawing" if found.is_drawn else f"style: {style_labels[style]}"
            caption = f"{class_names[label]}, {origin}" + "; a stand-in" * (not found.is_recognised)
            places.append(Picture(jpeg_uri(found.image_HWC), caption, found.is_recognised))
        rows.append(PictureRow(class_names[label], tuple(places)))
    return ContactSheet(style_labels[:num_styles], tuple(rows))


def _selection(folder: Path) -> NDArray[np.bool_] | None:
    """Which candidates of all shards are kept; None of another version, which wrote it nowhere."""
    path = selection_path(folder)
    return load_tensors(path)["is_kept"] if path.is_file() else None


def _collect(
    shard: dict[str, NDArray[Any]],
    is_kept: NDArray[np.bool_],
    shape: tuple[int, int],
    chosen: Chosen,
) -> None:
    drawing = shard.get("drawing_index")  # images of another version name no drawings
    for row in np.flatnonzero(is_kept):
        is_recognised = shard["is_recognised"][row]
        place = int(shard["class_index"][row]), int(shard["style_index"][row])
        known = chosen.get(place)
        is_wanted = known is None or (is_recognised and not known.is_recognised)
        if is_wanted and place[0] < shape[0] and place[1] < shape[1]:
            is_drawn = drawing is not None and bool(drawing[row] >= 0)
            chosen[place] = _Found(shard["images"][row].copy(), bool(is_recognised), is_drawn)


def jpeg_uri(image_HWC: NDArray[np.uint8]) -> str:
    """Compress an image into a data URI."""
    picture = Image.fromarray(image_HWC)
    picture.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
