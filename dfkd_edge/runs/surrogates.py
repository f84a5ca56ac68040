"""Surrogate images on disk: shards of candidates, the selection among them, their summary.

A shard is the unit of work: it is written whole, and its content depends on the seed and its number
alone, so a run that was stopped goes on with the next shard.

Shape suffixes: M candidates, N images kept, H rows, W columns, C = 3 channels, D embedding width,
K classes.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfkd_edge.artifacts import (
    ClassCount,
    SurrogateSet,
    SurrogateSummary,
    load_tensors,
    read_metadata,
    save_tensors,
)
from dfkd_edge.errors import ArtifactError
from dfkd_edge.files import content_hash, file_hash


def selection_path(folder: Path) -> Path:
    """Where it is written which candidates are kept, and which of these are held out."""
    return folder / "selection.safetensors"


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


def read_surrogates(folder: Path, class_names: tuple[str, ...], key: str) -> SurrogateSet:
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
    shards: list[dict[str, NDArray[Any]]] = []
    while sum(len(shard["class_index"]) for shard in shards) < len(keep):
        shards.append(_load_shard(shard_path(folder, len(shards))))
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
    summary = SurrogateSummary(
        content=content_hash(key, file_hash(selection_path(folder))),
        num_candidates=len(keep),
        num_images=len(label),
        num_heldout=int(heldout.sum()),
        num_unrecognised=int((~recognised).sum()),
        acceptance=float(recognised_all.mean()),
        mean_distance_within_class=mean_distance_within_class(embeddings, label),
        classes=tuple(
            ClassCount(
                name=name,
                num_images=int(per_class[index]),
                num_drawn=int((drawing[label == index] >= 0).sum()),
                acceptance=round(float(accepted[index] / max(candidates[index], 1)), 4),
            )
            for index, name in enumerate(class_names)
        ),
    )
    embeddings = embeddings.astype(np.float32)
    return SurrogateSet(images, label, style, drawing, embeddings, heldout, summary)


def _load_shard(path: Path) -> dict[str, NDArray[Any]]:
    shard = load_tensors(path)
    if "drawing_index" not in shard:
        raise ArtifactError(
            "images were made by another version", where=str(path), hint="use a new --output"
        )
    return shard
