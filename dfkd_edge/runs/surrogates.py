"""Surrogate images on disk: shards of candidates, the selection among them, their summary.

A shard is the unit of work: it is written whole, and its content depends on the seed and its number
alone, so a run that was stopped goes on with the next shard, and processes can share them.

Shape suffixes: M candidates, N images kept, H rows, W columns, C = 3 channels, D embedding width,
K classes.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfkd_edge.artifacts import (
    ClassCount,
    Ints,
    RowStore,
    SurrogateSet,
    SurrogateSummary,
    load_tensors,
    read_metadata,
    save_tensors,
    unreadable,
)
from dfkd_edge.errors import ConfigError
from dfkd_edge.files import content_hash, file_hash
from dfkd_edge.interfaces import WorkShare
from dfkd_edge.runs.row_stores import ChosenRows, JoinedRows, StoredRows, blocks, stored_tensors

SMALL_TABLES = ("class_index", "is_recognised", "style_index", "drawing_index")
"""Of a shard, [M]: bytes a candidate, which are kept in memory."""
LARGE_TABLES = ("images", "embeddings")
"""Of a shard, kilobytes a candidate, which are read by rows."""
SHARD_TENSORS = (*SMALL_TABLES, *LARGE_TABLES)
READ_TOGETHER = 512  # Embeddings in memory at a time


def selection_path(folder: Path) -> Path:
    """File that says which candidates are kept, `is_kept` [M], and held out, `is_heldout` [N]."""
    return folder / "selection.safetensors"


def shard_path(folder: Path, number: int) -> Path:
    """File of a shard."""
    return folder / f"shard-{number:05d}.safetensors"


def has_shard(folder: Path, number: int, key: str) -> bool:
    """Whether a shard of this stage key is there, whole."""
    metadata = read_metadata(shard_path(folder, number))
    return metadata is not None and metadata.get("key") == key


def write_shard(
    folder: Path, number: int, key: str, candidates: dict[str, NDArray[np.generic]]
) -> None:
    """Write the candidates of one shard, all tensors of [M, ...]."""
    save_tensors(shard_path(folder, number), candidates, {"key": key})


def open_shard(folder: Path, number: int, names: Iterable[str]) -> dict[str, StoredRows[Any]]:
    """Find the tensors of a shard, of which these must be there.

    Raises:
        ArtifactError: the shard is missing or damaged.
    """
    path = shard_path(folder, number)
    tensors = stored_tensors(path)
    if not tensors.keys() >= set(names):
        raise unreadable(path)
    return tensors


def mean_distance_within_class(embeddings: RowStore[np.float32], label_N: Ints) -> float:
    """Mean of 1 - cosine over pairs of different images of a class, mean over classes.

    Rows are unit vectors: the squared length of their sum is that of all pairs' cosines, each image
    with itself included.
    """
    count_K = np.bincount(label_N)
    sum_KD = np.zeros((len(count_K), embeddings.shape[1]))  # float64: `total - count` cancels
    for row_R in blocks(np.arange(len(label_N)), READ_TOGETHER):
        for label, row_D in zip(label_N[row_R], embeddings.rows(row_R), strict=True):
            sum_KD[label] += row_D
    sum_KD, count_K = sum_KD[count_K > 1], count_K[count_K > 1]
    distance_K = 1 - (np.square(sum_KD).sum(1) - count_K) / (count_K * (count_K - 1))
    return float(distance_K.mean()) if len(distance_K) else 0.0


def read_surrogates(folder: Path, class_names: tuple[str, ...], key: str) -> SurrogateSet:
    """Find the images that `write_selection` kept; they stay in their shards until they are read.

    Their content is hashed from the stage key and the selection: a student that learnt from another
    selection is another student.

    Raises:
        ArtifactError: a shard or the selection is missing or damaged.
    """
    selection = load_tensors(selection_path(folder))
    keep_M, heldout_N = selection["is_kept"], selection["is_heldout"]
    shards = _shards_of(folder, len(keep_M))
    label_M, recognised_M, style_M, drawing_M = (
        np.concatenate([shard[name].whole() for shard in shards]) for name in SMALL_TABLES
    )
    kept_N = np.flatnonzero(keep_M)
    images, embeddings = (
        ChosenRows(JoinedRows([shard[name] for shard in shards]), kept_N) for name in LARGE_TABLES
    )
    label_N, recognised_N = label_M[kept_N], recognised_M[kept_N]
    style_N, drawing_N = style_M[kept_N], drawing_M[kept_N]
    counted = label_M, label_N, label_N[recognised_N], label_N[drawing_N >= 0]
    summary = SurrogateSummary(
        content=content_hash(key, file_hash(selection_path(folder))),
        num_candidates=len(label_M),
        num_images=len(label_N),
        num_heldout=int(heldout_N.sum()),
        num_unrecognised=int((~recognised_N).sum()),
        acceptance=float(recognised_M.mean()),
        mean_distance_within_class=mean_distance_within_class(embeddings, label_N),
        classes=_class_counts(class_names, counted),
    )
    return SurrogateSet(images, label_N, style_N, drawing_N, embeddings, heldout_N, summary)


def _shards_of(folder: Path, num_candidates: int) -> list[dict[str, StoredRows[Any]]]:
    """Find the tensors of as many shards as hold all candidates."""
    shards: list[dict[str, StoredRows[Any]]] = []
    while num_candidates > 0:
        shards.append(open_shard(folder, len(shards), SHARD_TENSORS))
        num_candidates -= len(shards[-1]["class_index"])
    return shards


def _class_counts(class_names: Sequence[str], counted: Sequence[Ints]) -> tuple[ClassCount, ...]:
    """Count labels by class: of all candidates, of kept images, of recognised and drawn ones."""
    counts = (np.bincount(label, minlength=len(class_names)).tolist() for label in counted)
    return tuple(
        ClassCount(
            name=name,
            num_images=kept,
            num_drawn=drawn,
            acceptance=round(recognised / max(candidates, 1), 4),
        )
        for name, candidates, kept, recognised, drawn in zip(class_names, *counts, strict=True)
    )


def work_share(shard: str | None) -> WorkShare:
    """Read the share of a batch job, all of the work without one.

    Raises:
        ConfigError: it is not i/n with 1 <= i <= n.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", shard or "1/1")
    index, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= index <= count:
        raise ConfigError(
            f"'{shard}' is no share", where="--shard", hint="such as 3/8: the third of eight"
        )
    return WorkShare(index - 1, count)
