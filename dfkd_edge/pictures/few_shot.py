"""Few-shot: a few real pictures join the surrogate images that the student learns from.

They are training pictures like the others: random views, labelled by the teacher. Their class, from
their folder or else from the teacher, balances the batches. Copies weigh them up, so that a handful
of pictures counts beside thousands of surrogates. None of them is ever measured on.

Shape suffixes: N pictures, H rows, W columns, C = 3 channels (RGB), D embedding width.
"""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from dfkd_edge.artifacts import (
    Bytes,
    FewShotSummary,
    RowStore,
    Scalar,
    SurrogateSet,
    load_tensors,
    save_tensors,
)
from dfkd_edge.config.settings import FewShotConfig
from dfkd_edge.errors import faults_as_errors
from dfkd_edge.files import atomic_write, content_hash, read_json
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.pictures.real import RealPictures
from dfkd_edge.runs.context import StageContext
from dfkd_edge.runs.row_stores import ArrayRows, JoinedRows
from dfkd_edge.runtime.counting import first_few
from dfkd_edge.runtime.preprocess import read_picture

STAGE = "few_shot"
TENSORS, TABLE = "pictures.safetensors", "few_shot.json"
ARRAYS = ("images", "class_index", "embeddings")  # Of the former
EMBEDDED_TOGETHER = 64  # Bounds the memory of a pass of the teacher


class Chosen(NamedTuple):
    """The pictures that join, as the run keeps them."""

    image_NHWC: Bytes
    label_N: NDArray[np.int64]
    embedding_ND: NDArray[np.float32]
    summary: FewShotSummary


def join_pictures(
    surrogates: SurrogateSet,
    pictures: RealPictures | None,
    teacher: Teacher,
    config: FewShotConfig,
    context: StageContext,
) -> SurrogateSet:
    """Return the images to train on: the surrogates and, where there are some, real pictures.

    Raises:
        UsageError: a picture cannot be read.
    """
    if pictures is None:
        return surrogates
    content = content_hash(surrogates.summary.content, config, pictures.hashes)

    def make() -> Chosen:
        chosen = _choose(pictures, surrogates, teacher, config)
        _record(chosen, context, content)
        return chosen

    chosen = context.first_then_rest(make, lambda: _read(context.run_dir.path / STAGE))
    image_NHWC, label_N, embedding_ND, summary = chosen
    copies = summary.num_copies
    context.reporter.note(f"  {len(label_N)} real pictures join, {copies} times each")
    if pictures.left_out:
        context.reporter.note(f"  left out: {first_few(pictures.left_out, 5)}")
    count = copies * len(label_N)

    def with_copies(store: RowStore[Scalar], real: NDArray[Scalar]) -> RowStore[Scalar]:
        return JoinedRows([store, *[ArrayRows(real)] * copies])

    return replace(
        surrogates,
        images=with_copies(surrogates.images, image_NHWC),
        class_index=np.concatenate([surrogates.class_index, *[label_N] * copies]),
        style_index=np.concatenate([surrogates.style_index, np.zeros(count, np.int64)]),
        drawing_index=np.concatenate([surrogates.drawing_index, np.full(count, -1)]),
        embeddings=with_copies(surrogates.embeddings, embedding_ND),
        is_heldout=np.concatenate([surrogates.is_heldout, np.zeros(count, np.bool_)]),
        summary=replace(surrogates.summary, content=content, few_shot=summary),
    )


def _choose(
    pictures: RealPictures, surrogates: SurrogateSet, teacher: Teacher, config: FewShotConfig
) -> Chosen:
    """Read the pictures, and ask the teacher for the class of those without one."""
    image_NHWC = _decode(pictures, surrogates.images.shape[1])
    embedding_ND = _embed(image_NHWC, teacher)
    guess_N = teacher.logits(torch.from_numpy(embedding_ND).to(teacher.device)).argmax(1).tolist()
    label_N = np.array(
        [g if label is None else label for g, label in zip(guess_N, pictures.labels, strict=True)]
    )
    share = config.share
    # share = copies * N / (surrogates + copies * N), solved for the copies
    copies = max(1, round(len(surrogates) * share / (1 - share) / len(label_N)))
    summary = FewShotSummary(
        num_pictures=len(label_N),
        num_copies=copies,
        is_labelled=None not in pictures.labels,
        num_classes=len(set(label_N.tolist())),
        teacher_agreement=float(np.mean(label_N == np.array(guess_N))),
        pictures=dict(zip(map(str, pictures.files), pictures.hashes, strict=True)),
    )
    return Chosen(image_NHWC, label_N, embedding_ND, summary)


def _decode(pictures: RealPictures, side_px: int) -> Bytes:
    with faults_as_errors():
        return np.stack([read_picture(file, side_px) for file in pictures.files])


@torch.no_grad()
def _embed(image_NHWC: Bytes, teacher: Teacher) -> NDArray[np.float32]:
    parts = [
        teacher.embed_images(part.permute(0, 3, 1, 2).to(teacher.device) / 255)
        for part in torch.from_numpy(image_NHWC).split(EMBEDDED_TOGETHER)
    ]
    embedding_ND: NDArray[np.float32] = torch.cat(parts).cpu().numpy()
    return embedding_ND


def _record(chosen: Chosen, context: StageContext, content: str) -> None:
    """Keep the pictures as they were used, and the hashes of their files, in the run."""
    folder = context.run_dir.stage_dir(STAGE)
    tensors, table = folder / TENSORS, folder / TABLE
    arrays = chosen.image_NHWC, chosen.label_N, chosen.embedding_ND
    save_tensors(tensors, dict(zip(ARRAYS, arrays, strict=True)))
    document = json.dumps(asdict(chosen.summary), indent=2, ensure_ascii=False)
    atomic_write(table, document + "\n")
    context.run_dir.complete(STAGE, content, [tensors, table])


def _read(folder: Path) -> Chosen:
    tensors = load_tensors(folder / TENSORS)
    summary = FewShotSummary(**read_json(folder / TABLE))
    image_NHWC, label_N, embedding_ND = (tensors[name] for name in ARRAYS)
    return Chosen(image_NHWC, label_N, embedding_ND, summary)
