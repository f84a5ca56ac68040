"""The contact sheet: one kept surrogate image of every class in every style, as data URIs.

Shape suffixes: H rows, W columns, C = 3 channels (RGB).
"""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

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
    """Whether the teacher sees the class that was asked for; others are kept all the same."""


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
        marks = ["A dashed frame: the teacher takes the image for another class."]
        marks *= any(picture and not picture.is_recognised for picture in pictures)
        marks += ["A dash: no image of that class and style was kept."] * (None in pictures)
        return " ".join(marks)


@dataclass(frozen=True, slots=True)
class _Found:
    """An image for a place of the sheet."""

    image_HWC: NDArray[np.uint8]
    is_recognised: bool
    is_drawn: bool


def contact_sheet(
    folder: Path, class_names: tuple[str, ...], style_labels: tuple[str, ...]
) -> ContactSheet:
    """Pick the first kept image of each class and style that is recognised, else the first kept.

    Raises:
        ArtifactError: a shard is damaged.
    """
    names, styles = class_names[:MAX_CLASSES], style_labels[:MAX_STYLES]
    found = _find(folder, (len(names), len(styles)))

    def picture(label: int, style: int) -> Picture | None:
        place = found.get((label, style))
        if place is None:
            return None
        caption = f"{names[label]}, "
        caption += "of a drawing" if place.is_drawn else f"style: {styles[style]}"
        caption += "; taken for another class" * (not place.is_recognised)
        return Picture(jpeg_uri(place.image_HWC), caption, place.is_recognised)

    rows = (
        PictureRow(name, tuple(picture(label, style) for style in range(len(styles))))
        for label, name in enumerate(names)
    )
    return ContactSheet(styles, tuple(rows))


def _find(folder: Path, shape: tuple[int, int]) -> dict[tuple[int, int], _Found]:
    """Class and style -> the image that stands for them.

    Shards are read one at a time, and only until every place has a recognised image.
    """
    found: dict[tuple[int, int], _Found] = {}
    is_kept, start = load_tensors(selection_path(folder))["is_kept"], 0
    for path in sorted(folder.glob("shard-*.safetensors")):
        shard = load_tensors(path)
        recognised = shard["is_recognised"]
        for row in np.flatnonzero(is_kept[start : start + len(recognised)]):
            place = int(shard["class_index"][row]), int(shard["style_index"][row])
            known = found.get(place)
            is_wanted = known is None or (recognised[row] and not known.is_recognised)
            if is_wanted and place[0] < shape[0] and place[1] < shape[1]:
                image = shard["images"][row].copy()  # a view would keep the whole shard in memory
                is_drawn = bool(shard["drawing_index"][row] >= 0)
                found[place] = _Found(image, bool(recognised[row]), is_drawn)
        start += len(recognised)
        if sum(one.is_recognised for one in found.values()) == shape[0] * shape[1]:
            break
    return found


def jpeg_uri(image_HWC: NDArray[np.uint8]) -> str:
    """Compress an image into a data URI."""
    picture = Image.fromarray(image_HWC)
    picture.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
