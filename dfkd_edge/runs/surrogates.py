"""Surrogate images on disk: shards of candidates, the selection among them, their summary.

A shard is the unit of work: it is written whole, and its content depends on the seed and its number
alone, so a run that was stopped goes on with the next shard, and processes can share them.

Shape suffixes: M candidates, N images kept, H rows, W columns, C = 3 channels, D embedding width,
K classes.
"""

import re
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
from dfkd_edge.errors import ConfigError
from dfkd_edge.files import content_hash, file_hash
from dfkd_edge.interfaces import WorkShare
from dfkd_edge.machine.process import rank, world_size


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


def mean_distance_within_class(
    embedding_ND: NDArray[np.float32], class_index: NDArray[np.int64]
) -> float:
    """Mean of 1 - cosine over pairs of different images of a class, mean over classes.

    Rows are unit vectors: the squared length of their sum is that of all pairs' cosines, each image
    with itself included.
    """
    distances = []
    for label in np.unique(class_index):
        rows_ND = embedding_ND[class_index == label].astype(np.float64)  # `total - count` cancels
        count = len(rows_ND)
        if count > 1:
            total = float(np.square(rows_ND.sum(0)).sum()) - count
            distances.append(1 - total / (count * (count - 1)))
    return float(np.mean(distances)) if distances else 0.0


def read_surrogates(folder: Path, class_names: tuple[str, ...], key: str) -> SurrogateSet:
    """Read the images that `write_selection` kept, shard after shard.

    Their content is hashed from the stage key and the selection: a student that learnt from another
    selection is another student.

    Raises:
        ArtifactError: a shard or the selection is missing or damaged.
    """
    selection = load_tensors(selection_path(folder))
    keep_M, heldout_N = selection["is_kept"], selection["is_heldout"]
    shards: list[dict[str, NDArray[Any]]] = []
    while sum(len(shard["class_index"]) for shard in shards) < len(keep_M):
        shards.append(load_tensors(shard_path(folder, len(shards))))
    borders = np.cumsum([len(shard["class_index"]) for shard in shards])[:-1]
    parts = list(zip(shards, np.split(keep_M, borders), strict=True))

    def kept(name: str) -> NDArray[Any]:
        return np.concatenate([shard[name][keep] for shard, keep in parts])

    label_M = np.concatenate([shard["class_index"] for shard in shards])
    recognised_M = np.concatenate([shard["is_recognised"] for shard in shards])
    label_N, drawing_N, recognised_N = label_M[keep_M], kept("drawing_index"), recognised_M[keep_M]
    embedding_ND = kept("embeddings")
    candidates_K, images_K, recognised_K, drawn_K = (
        np.bincount(label, minlength=len(class_names))
        for label in (label_M, label_N, label_N[recognised_N], label_N[drawing_N >= 0])
    )
    summary = SurrogateSummary(
        content=content_hash(key, file_hash(selection_path(folder))),
        num_candidates=len(label_M),
        num_images=len(label_N),
        num_heldout=int(heldout_N.sum()),
        num_unrecognised=int((~recognised_N).sum()),
        acceptance=float(recognised_M.mean()),
        mean_distance_within_class=mean_distance_within_class(embedding_ND, label_N),
        classes=tuple(
            ClassCount(
                name=name,
                num_images=int(images_K[index]),
                num_drawn=int(drawn_K[index]),
                acceptance=round(float(recognised_K[index] / max(candidates_K[index], 1)), 4),
            )
            for index, name in enumerate(class_names)
        ),
    )
    embedding_ND = embedding_ND.astype(np.float32)
    images, style_N = kept("images"), kept("style_index")
    return SurrogateSet(images, label_N, style_N, drawing_N, embedding_ND, heldout_N, summary)


def work_share(shard: str | None) -> WorkShare:
    """Join the share of a batch job with the rank that torchrun gives this process.

    Raises:
        ConfigError: it is not i/n with 1 <= i <= n.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", shard or "1/1")
    index, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= index <= count:
        raise ConfigError(
            f"'{shard}' is no share", where="--shard", hint="such as 3/8: the third of eight"
        )
    return WorkShare((index - 1) * world_size() + rank(), count * world_size())


def shards_of_job(first: WorkShare, num_shards: int) -> list[int]:
    """Numbers of the shards that the processes of torchrun make together.

    Args:
        first: the share of rank 0; those of the other ranks follow it.
        num_shards: of the whole set.
    """
    indices = range(first.index, first.index + world_size())
    return [number for number in range(num_shards) if number % first.count in indices]
