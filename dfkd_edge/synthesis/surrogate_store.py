"""The surrogate store: shards of candidates on disk, and the filter that picks the SurrogateSet.

A shard is the unit of work: it is written whole, and its content depends on the seed and its number
alone, so a run that was stopped goes on with the next shard.

Shape suffixes: M candidates, N images kept, H rows, W columns, C = 3 channels, D embedding width,
K classes.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfkd_edge.artifacts import SurrogateSet, load_tensors, read_metadata, save_tensors
from dfkd_edge.errors import ArtifactError
from dfkd_edge.kept_images import selection_path
from dfkd_edge.run_dir import atomic_write, content_hash, file_hash

MIN_SHARE_KEPT = 0.25
"""At least this share of each class's candidates is kept, the likeliest first: a class that the
teacher hardly recognises still has pictures (ours)."""
SHEET_LINE_PX = 17
"""Distance of the lines of text beside a row of the contact sheet."""
SEVERAL_DRAWINGS = 8
"""A class with fewer drawings trains on all of them (ours)."""


def shard_path(folder: Path, number: int) -> Path:
    """Where a shard lies."""
    return folder / f"shard-{number:05d}.safetensors"


def has_shard(folder: Path, number: int, key: str) -> bool:
    """Whether a shard of this stage key is there, whole."""
    metadata = read_metadata(shard_path(folder, number))
    return metadata is not None and metadata.get("key") == key


def write_shard(
    folder: Path, number: int, key: str, candidates: dict[str, NDArray[np.generic]]
) -> None:
    """Write what `make_candidates` makes."""
    save_tensors(shard_path(folder, number), candidates, {"key": key})


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


def mean_distance_within_class(
    embedding_ND: NDArray[np.float32], class_index: NDArray[np.int64]
) -> float:
    """Mean of 1 - cosine over pairs of different images of a class, mean over classes."""
    distances = []
    for label in np.unique(class_index):
        rows_ND = embedding_ND[class_index == label].astype(np.float64)
        count = len(rows_ND)
        if count > 1:
            total = float(np.square(rows_ND.sum(0)).sum()) - count
            distances.append(1 - total / (count * (count - 1)))
    return float(np.mean(distances)) if distances else 0.0


def write_selection(folder: Path, num_shards: int, heldout_share: float, key: str) -> Path:
    """Filter the candidates of all shards, set the held-out images apart, and write both down.

    It is decided once for a stage key: what a student learnt from is held out neither by another
    version nor when another file of the stage is made again.

    Returns:
        the file: `is_kept` [M] and `is_heldout` [N].

    Raises:
        ArtifactError: a shard is missing or damaged.
    """
    path = selection_path(folder)
    decided = read_metadata(path)
    if decided is not None and decided.get("key") == key:
        return path
    names = ("class_index", "is_recognised", "probability", "drawing_index")
    parts = []
    for number in range(num_shards):
        shard = _load_shard(shard_path(folder, number))
        parts.append([shard[name] for name in names])
    label, recognised, probability, drawing = map(np.concatenate, zip(*parts, strict=True))
    keep = kept_candidates(label, recognised, probability)
    heldout = held_out(label[keep], drawing[keep], heldout_share)
    save_tensors(path, {"is_kept": keep, "is_heldout": heldout}, {"key": key})
    return path


def read_surrogates(
    folder: Path, num_shards: int, class_names: tuple[str, ...], key: str
) -> SurrogateSet:
    """Read the images that `write_selection` kept.

    Their content is hashed from the stage key and the selection: a student that learnt from another
    selection is another student.

    Raises:
        ArtifactError: a shard or the selection is missing, damaged or of another version.
    """
    if not selection_path(folder).is_file():
        raise ArtifactError(
            "images were selected by another version",
            where=str(selection_path(folder)),
            hint="distill into a new --output",
        )
    selection = load_tensors(selection_path(folder))
    keep, heldout = selection["is_kept"], selection["is_heldout"]
    shards = [_load_shard(shard_path(folder, number)) for number in range(num_shards)]
    label = np.concatenate([s["class_index"] for s in shards])
    recognised = np.concatenate([s["is_recognised"] for s in shards])
    borders = np.cumsum([0, *(len(s["class_index"]) for s in shards)])
    parts = [keep[a:b] for a, b in itertools.pairwise(borders)]
    images = np.concatenate([s["images"][k] for s, k in zip(shards, parts, strict=True)])
    embeddings = np.concatenate([s["embeddings"][k] for s, k in zip(shards, parts, strict=True)])
    style = np.concatenate([s["style_index"] for s in shards])[keep]
    drawing = np.concatenate([s["drawing_index"] for s in shards])[keep]
    label, recognised_all, recognised = label[keep], recognised, recognised[keep]
    per_class = np.bincount(label, minlength=len(class_names))
    candidates = np.bincount(
        np.concatenate([s["class_index"] for s in shards]), minlength=len(per_class)
    )
    accepted = np.bincount(label[recognised], minlength=len(per_class))
    summary = {
        "content": content_hash(key, file_hash(selection_path(folder))),
        "num_candidates": len(keep),
        "num_images": len(label),
        "num_heldout": int(heldout.sum()),
        "num_stand_ins": int((~recognised).sum()),
        "acceptance": float(recognised_all.mean()),
        "mean_distance_within_class": mean_distance_within_class(embeddings, label),
        "classes": [
            {
                "name": name,
                "num_images": int(per_class[index]),
                "num_drawn": int((drawing[label == index] >= 0).sum()),
                "acceptance": round(float(accepted[index] / max(candidates[index], 1)), 4),
            }
            for index, name in enumerate(class_names)
        ],
    }
    embeddings = embeddings.astype(np.float32)
    return SurrogateSet(images, label, style, drawing, embeddings, heldout, summary)


def _load_shard(path: Path) -> dict[str, NDArray[Any]]:
    shard = load_tensors(path)
    if "drawing_index" not in shard:
        raise ArtifactError(
            "images were made by another version", where=str(path), hint="use a new --output"
        )
    return shard


def held_out(
    label_N: NDArray[np.int64], drawing_N: NDArray[np.int64], share: float
) -> NDArray[np.bool_]:
    """Set a share of each class apart; classes too small for that give theirs together.

    A drawing is set apart with all images of it, and only where a class has several to learn from;
    a class with few gives other images in their place, at most half of these.
    Long lists leave a few images a class, and an evaluation needs some of them.

    Returns:
        [N], True for at least one image.
    """
    every = max(2, round(1 / share))
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


def write_summary(folder: Path, surrogates: SurrogateSet) -> Path:
    """Write surrogates.json and return its path."""
    path = folder / "surrogates.json"
    atomic_write(path, json.dumps(surrogates.summary, indent=2, ensure_ascii=False) + "\n")
    return path


def read_summary(folder: Path) -> dict[str, Any]:
    """Read what `write_summary` wrote, and what the stage added to it."""
    summary: dict[str, Any] = json.loads((folder / "surrogates.json").read_text(encoding="utf-8"))
    return summary


def row_text(entry: dict[str, Any]) -> tuple[str, ...]:
    """Say what stands beside the images of a class: name, recognised candidates, number kept."""
    name = entry["name"].encode("latin-1", "replace").decode("latin-1")
    drawn = f", {entry['num_drawn']} drawn" if entry["num_drawn"] else ""
    return (
        name[:18],
        f"{entry['acceptance']:.0%} recognised",
        f"{entry['num_images']} kept{drawn}",
    )


def write_contact_sheet(
    folder: Path, surrogates: SurrogateSet, num_columns: int = 12, max_rows: int = 40
) -> Path:
    """Write contact_sheet.png: one row of images a class, named on the left; returns its path."""
    import io

    from PIL import Image, ImageDraw

    classes = surrogates.summary["classes"][:max_rows]
    side, margin = surrogates.images.shape[1], 140
    height = max(side, 4 * SHEET_LINE_PX)  # three lines of text, and the margins
    sheet = Image.new("RGB", (margin + num_columns * side, len(classes) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for row, entry in enumerate(classes):
        for line, text in enumerate(row_text(entry)):
            place = (6, row * height + 8 + line * SHEET_LINE_PX)
            draw.text(place, text, fill="grey" if line else "black")
        for column, index in enumerate(np.flatnonzero(surrogates.class_index == row)[:num_columns]):
            picture = Image.fromarray(surrogates.images[index])
            sheet.paste(picture, (margin + column * side, row * height))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    path = folder / "contact_sheet.png"
    atomic_write(path, buffer.getvalue())
    return path
