"""Pictures in the place of surrogates: real ones (upper bound) and procedural ones (floor).

The teacher labels them as it would surrogates; their own names are not looked at.

Shape suffixes: N pictures, H rows, W columns, C = 3 channels (RGB), D embedding width, P side.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dfkd_edge.artifacts import SurrogateSet, SurrogateSummary
from dfkd_edge.errors import ConfigError, EnvironmentLackingError
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.runs.row_stores import ArrayRows
from dfkd_edge.runs.surrogates import mean_distance_within_class
from dfkd_edge.seeding import derived_seed
from dfkd_edge.synthesis.selection import held_out

Pictures = NDArray[np.uint8]
HELDOUT_SHARE = 1 / 12
EMBEDDED_TEACHER = Path(__file__).parents[1] / "embedded_teacher"
MAX_LEAVES = 200
"""Leaves of a picture at most; what they leave open stays grey."""


def stored_pictures(source: Path, work: Path) -> Path:
    """Find photos.npy [N, P, P, C]: `source` itself, or made from its parquet files in `work`.

    Raises:
        ConfigError: `source` is neither.
        EnvironmentLackingError: parquet files cannot be read here.
    """
    if source.suffix == ".npy" and source.is_file():
        return source
    if not any(source.glob("*.parquet")):
        raise ConfigError(
            "no real pictures", where=str(source), hint="a folder of parquet files, or photos.npy"
        )
    if not (work / "photos.json").is_file():  # written last: with it, photos.npy is whole
        work.mkdir(parents=True, exist_ok=True)
        if str(EMBEDDED_TEACHER) not in sys.path:
            sys.path.append(str(EMBEDDED_TEACHER))
        try:
            importlib.import_module("pictures").gather_photos(source, work)
        except ModuleNotFoundError as error:
            raise EnvironmentLackingError(
                f"{error.name} is not installed",
                where=str(source),
                hint="pip install 'dfkd-edge[study]'",
            ) from error
    return work / "photos.npy"


def real_pictures(path: Path, num: int, seed: int) -> Pictures:
    """Draw `num` of the stored pictures, without repeats while there are enough."""
    stored = np.load(path, mmap_mode="r")
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.choice(len(stored), num, replace=num > len(stored)))
    drawn: Pictures = stored[rows]
    return drawn


def dead_leaves(num: int, side_px: int, seed: int) -> Pictures:
    """Draw pictures of overlapping discs and boxes, which no camera and no artist has seen.

    Sizes follow a power law of exponent 3, as in dead-leaves models of natural pictures (Lee et
    al., 2001; as training pictures: Baradad et al., NeurIPS 2021).
    """
    picture_NPPC = np.empty((num, side_px, side_px, 3), np.uint8)
    for index in range(num):
        rng = np.random.default_rng(derived_seed(seed, "dead leaves", index))
        picture_NPPC[index] = _dead_leaves_picture(side_px, rng)
    return picture_NPPC


def _dead_leaves_picture(side_px: int, rng: np.random.Generator) -> Pictures:
    picture_PPC = np.full((side_px, side_px, 3), 128, np.uint8)
    is_open_PP = np.ones((side_px, side_px), np.bool_)
    smallest, largest = side_px / 16, side_px / 2
    share = rng.random(MAX_LEAVES)
    radius = (smallest**-2 + share * (largest**-2 - smallest**-2)) ** -0.5
    centre = rng.uniform(0, side_px, (MAX_LEAVES, 2))
    aspect, angle = rng.uniform(0.4, 1.0, MAX_LEAVES), rng.uniform(0, np.pi, MAX_LEAVES)
    is_disc, colour = rng.random(MAX_LEAVES) < 0.5, rng.integers(0, 256, (MAX_LEAVES, 3))
    for leaf in range(MAX_LEAVES):  # from the front: what is covered already is left out
        reach = 1.5 * radius[leaf]
        low = np.clip(np.floor(centre[leaf] - reach), 0, side_px).astype(int)
        high = np.clip(np.ceil(centre[leaf] + reach), 0, side_px).astype(int)
        window = np.s_[low[0] : high[0], low[1] : high[1]]
        if not is_open_PP[window].any():
            continue
        row = np.arange(low[0], high[0])[:, None] - centre[leaf, 0]
        column = np.arange(low[1], high[1]) - centre[leaf, 1]
        cos, sin = np.cos(angle[leaf]), np.sin(angle[leaf])
        u, v = (row * cos + column * sin), (column * cos - row * sin) / aspect[leaf]
        size = u**2 + v**2 if is_disc[leaf] else np.maximum(np.abs(u), np.abs(v)) ** 2
        covered = is_open_PP[window] & (size < radius[leaf] ** 2)
        picture_PPC[window][covered] = colour[leaf]
        is_open_PP[window] &= ~covered
    return picture_PPC


@torch.no_grad()
def labelled_by_teacher(picture_NHWC: Pictures, teacher: Teacher, content: str) -> SurrogateSet:
    """Let the teacher label pictures and set a share of each class apart.

    Args:
        picture_NHWC: the pictures.
        teacher: labels them.
        content: tells this set from another.
    """
    parts = [
        teacher.embed_images(
            torch.from_numpy(picture_NHWC[i : i + 128]).to(teacher.device).permute(0, 3, 1, 2) / 255
        )
        for i in range(0, len(picture_NHWC), 128)
    ]
    embedding = torch.cat(parts)
    label = teacher.logits(embedding).argmax(1).cpu().numpy()
    embeddings = ArrayRows(embedding.float().cpu().numpy())
    no_drawing = np.full_like(label, -1)
    heldout = held_out(label, no_drawing, HELDOUT_SHARE)
    summary = SurrogateSummary(
        content=content,
        num_candidates=len(label),
        num_images=len(label),
        num_heldout=int(heldout.sum()),
        num_unrecognised=0,
        acceptance=1.0,  # a picture's class is what the teacher takes it for
        mean_distance_within_class=mean_distance_within_class(embeddings, label),
        classes=(),
    )
    images, style = ArrayRows(picture_NHWC), np.zeros_like(label)
    return SurrogateSet(images, label, style, no_drawing, embeddings, heldout, summary)
