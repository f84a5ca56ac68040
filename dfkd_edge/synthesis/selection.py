"""Which candidates become surrogate images, which of these are held out, and the contact sheet.

Shape suffixes: M candidates, N images kept, H rows, W columns, C = 3 channels, D embedding width,
K classes.
"""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dfkd_edge.artifacts import ClassCount, SurrogateSet, read_metadata, save_tensors
from dfkd_edge.files import atomic_write
from dfkd_edge.runs.surrogates import open_shard, selection_path

MIN_SHARE_KEPT = 0.25
"""At least this share of each class's candidates is kept, the likeliest first: a class that the
teacher hardly recognises still has pictures (ours)."""
SHEET_COLUMNS, SHEET_ROWS = 12, 40  # Images and classes of the contact sheet, at most
SHEET_LINE_PX = 17  # Height of a line of text beside a row of the contact sheet
SEVERAL_DRAWINGS = 8  # A class with fewer drawings trains on all of them (ours)


def kept_candidates(
    class_index: NDArray[np.int64],
    is_recognised: NDArray[np.bool_],
    probability: NDArray[np.float32],
) -> NDArray[np.bool_]:
    """Keep what the teacher recognises, and the likeliest MIN_SHARE_KEPT of every class."""
    keep = is_recognised.copy()
    for label in np.unique(class_index):
        rows = np.flatnonzero(class_index == label)
        likeliest = rows[np.argsort(-probability[rows], kind="stable")]
        keep[likeliest[: max(1, round(len(rows) * MIN_SHARE_KEPT))]] = True
    return keep


def write_selection(folder: Path, num_shards: int, heldout_share: float, key: str) -> Path:
    """Filter the candidates of all shards, choose the held-out images, and write both down.

    A file of the same stage key stays as it is: images that a student learnt from must not become
    held-out ones when another file of the stage is made again.

    Returns:
        the file with `is_kept` [M] and `is_heldout` [N].

    Raises:
        ArtifactError: a shard is missing or damaged.
    """
    path = selection_path(folder)
    decided = read_metadata(path)
    if decided is not None and decided.get("key") == key:
        return path
    names = ("class_index", "is_recognised", "probability", "drawing_index")
    shards = [open_shard(folder, number, names) for number in range(num_shards)]
    label, recognised, probability, drawing = (
        np.concatenate([shard[name].whole() for shard in shards]) for name in names
    )
    keep = kept_candidates(label, recognised, probability)
    heldout = held_out(label[keep], drawing[keep], heldout_share)
    save_tensors(path, {"is_kept": keep, "is_heldout": heldout}, {"key": key})
    return path


def held_out(
    label_N: NDArray[np.int64], drawing_N: NDArray[np.int64], share: float
) -> NDArray[np.bool_]:
    """Hold a share of the images of each class out.

    A drawing is held out with all its images, for a student that saw it elsewhere would flatter the
    evaluation; and only where the class has SEVERAL_DRAWINGS. A class with fewer gives other images
    in their place, at most half of these. Classes that are too small for the share are pooled: a
    long list has few images a class, and an evaluation needs some of them.

    Returns:
        [N], True for at least one image.
    """
    every = max(2, round(1 / share))  # half of a class still teaches
    heldout_N = np.zeros(len(label_N), np.bool_)
    is_drawn_N = drawing_N >= 0
    small = np.zeros(0, np.int64)
    for number in np.unique(label_N):
        is_of_class_N = label_N == number
        drawings = np.unique(drawing_N[is_of_class_N & is_drawn_N])
        others = np.flatnonzero(is_of_class_N & ~is_drawn_N)
        step = every
        if len(drawings) >= SEVERAL_DRAWINGS:
            apart = drawings[min(every, len(drawings)) - 1 :: every]
            heldout_N |= is_of_class_N & np.isin(drawing_N, apart)
        elif len(drawings):
            step = max(2, len(others) * every // int(is_of_class_N.sum()))
        if len(others) >= step:
            heldout_N[others[step - 1 :: step]] = True
        else:
            small = np.concatenate([small, others])
    heldout_N[small[every - 1 :: every]] = True
    heldout_N[-1:] |= not heldout_N.any()
    return heldout_N


def row_text(entry: ClassCount) -> tuple[str, ...]:
    """Write the lines beside the images of a class: name, recognised candidates, number kept."""
    name = entry.name.encode("latin-1", "replace").decode("latin-1")  # all that PIL's font has
    drawn = f", {entry.num_drawn} drawn" if entry.num_drawn else ""
    return name[:18], f"{entry.acceptance:.0%} recognised", f"{entry.num_images} kept{drawn}"


def write_contact_sheet(folder: Path, surrogates: SurrogateSet) -> Path:
    """Write contact_sheet.png: one row of images a class, named on the left; returns its path."""
    from PIL import Image, ImageDraw

    classes = surrogates.summary.classes[:SHEET_ROWS]
    side, margin = surrogates.images.shape[1], 140
    height = max(side, 4 * SHEET_LINE_PX)  # three lines of text, and the margins
    sheet = Image.new("RGB", (margin + SHEET_COLUMNS * side, len(classes) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for row, entry in enumerate(classes):
        for line, text in enumerate(row_text(entry)):
            place = (6, row * height + 8 + line * SHEET_LINE_PX)
            draw.text(place, text, fill="grey" if line else "black")
        of_class = np.flatnonzero(surrogates.class_index == row)[:SHEET_COLUMNS]
        for column, image_HWC in enumerate(surrogates.images.rows(of_class)):
            sheet.paste(Image.fromarray(image_HWC), (margin + column * side, row * height))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    path = folder / "contact_sheet.png"
    atomic_write(path, buffer.getvalue())
    return path
