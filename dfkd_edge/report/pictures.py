"""The contact sheet: one kept surrogate image of every class in every style, as data URIs.

Shape suffixes: H rows, W columns, C = 3 channels (RGB).
"""

import base64
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dfkd_edge.artifacts import load_tensors
from dfkd_edge.runs.surrogates import SMALL_TABLES, open_shard, selection_path

MAX_CLASSES, MAX_STYLES = 20, 8
MAX_SIDE_PX = 160  # Of an enlarged picture; 160 of them are in one file that people send around
JPEG_QUALITY = 82


class Picture(NamedTuple):
    """One image of the sheet."""

    uri: str
    caption: str
    is_recognised: bool
    """Whether the teacher sees the class that was asked for; others are kept all the same."""


Rows = dict[str, list[Picture | None]]
"""Class -> its images in the order of the styles, None where there is none."""


def legend(rows: Rows) -> str:
    """Say what the marks of a sheet mean, of those that it has."""
    pictures = [picture for places in rows.values() for picture in places]
    marks = ["A dashed frame: the teacher takes the image for another class."]
    marks *= any(picture and not picture.is_recognised for picture in pictures)
    marks += ["A dash: no image of that class and style was kept."] * (None in pictures)
    return " ".join(marks)


def contact_sheet(
    folder: Path, class_names: tuple[str, ...], style_labels: tuple[str, ...]
) -> Rows:
    """Pick the first kept image of each class and style that is recognised, else the first kept.

    Shards are read one at a time, and only until every place has a recognised image.

    Raises:
        ArtifactError: a shard is damaged.
    """
    rows: Rows = {name: [None] * len(style_labels) for name in class_names}
    is_kept, start = load_tensors(selection_path(folder))["is_kept"], 0
    for number in range(len(list(folder.glob("shard-*.safetensors")))):
        shard = open_shard(folder, number, (*SMALL_TABLES, "images"))
        labels, recognised, styles, drawings = (shard[name].whole() for name in SMALL_TABLES)
        for row in np.flatnonzero(is_kept[start : start + len(recognised)]):
            label, style = int(labels[row]), int(styles[row])
            if label >= len(class_names) or style >= len(style_labels):
                continue
            known = rows[class_names[label]][style]
            if known is None or (recognised[row] and not known.is_recognised):
                is_drawn = drawings[row] >= 0
                look = "of a drawing" if is_drawn else f"style: {style_labels[style]}"
                mark = "" if recognised[row] else "; taken for another class"
                caption = f"{class_names[label]}, {look}{mark}"
                (image_HWC,) = shard["images"].rows(np.array([row]))
                rows[class_names[label]][style] = Picture(
                    jpeg_uri(image_HWC), caption, bool(recognised[row])
                )
        start += len(recognised)
        if all(found and found.is_recognised for places in rows.values() for found in places):
            break
    return rows


def jpeg_uri(image_HWC: NDArray[np.uint8]) -> str:
    """Compress an image into a data URI."""
    picture = Image.fromarray(image_HWC)
    picture.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
