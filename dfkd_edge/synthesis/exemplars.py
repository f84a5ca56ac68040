"""Exemplars: the named drawings in the embedded decoder's memory, and which of them show a class.

A drawing serves a class when its name lies near the class in the teacher's text space and the
teacher sees the class in it, among the other classes of the list and among all names of the memory.

Shape suffixes: M drawings, V distinct names, K classes, D embedding width, P side of a drawing in
pixels, C = 4 channels (RGBA).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dfkd_edge import assets
from dfkd_edge.errors import ConfigError
from dfkd_edge.interfaces import Reporter
from dfkd_edge.teacher import Teacher

NAME_TEXT = "a drawing of a {}"
"""What the teacher reads of a drawing's name; a class is what the zero-shot head holds of it."""
MIN_SIMILARITY = 0.7
"""Cosine of names that may stand for a class: "horse head" for horse, not "dog" for a breed."""
MIN_SIMILARITY_TO_PROMPT = 0.95
"""The same where a class has a prompt of its own, which tells that its name alone misleads: "a
photo of a computer mouse" takes "computer mouse", "a crane, a bird" nothing of the name "crane"."""
MAX_RANK = 10
"""So many names of the memory may fit a drawing better than its class does, less one."""
MAX_DRAWINGS = 40
"""Drawings of a class, nearest names first."""
BATCH_SIZE = 64
"""Texts or drawings that the teacher reads together."""

Place = tuple[int, int]
"""A drawing: number of its sheet, number in the sheet."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """One picture of many drawings in rows, of one icon set."""

    path: Path
    names: tuple[str, ...]
    """Of each drawing, in reading order."""
    side_px: int
    num_columns: int

    def drawings(self, wanted: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Cut drawings out, uint8 [M, P, P, C].

        Raises:
            ConfigError: the sheet is damaged.
        """
        side = self.side_px
        try:
            with Image.open(self.path) as picture:
                pixels = np.asarray(picture.convert("RGBA"))
        except OSError as error:
            raise _incomplete(self.path) from error
        corners = [divmod(int(number), self.num_columns) for number in wanted]
        cut = [pixels[r * side : (r + 1) * side, c * side : (c + 1) * side] for r, c in corners]
        return np.stack(cut)


def read_sheets(folder: Path = assets.EXEMPLARS) -> tuple[Sheet, ...]:
    """Read what the memory holds, without its pixels.

    Raises:
        ConfigError: a part of the memory is missing.
    """
    path = folder / "exemplars.json"
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise _incomplete(path) from error
    sheets = tuple(
        Sheet(folder / f"{style}.webp", tuple(names), index["side_px"], index["num_columns"])
        for style, names in index["names"].items()
    )
    for sheet in sheets:
        if not sheet.path.is_file():
            raise _incomplete(sheet.path)
    return sheets


def _incomplete(path: Path) -> ConfigError:
    return ConfigError("decoder is incomplete", where=str(path), hint="install again")


def distinct_names(sheets: tuple[Sheet, ...]) -> dict[str, list[Place]]:
    """Where the drawings of each name are."""
    places: dict[str, list[Place]] = {}
    for at, sheet in enumerate(sheets):
        for number, name in enumerate(sheet.names):
            places.setdefault(name, []).append((at, number))
    return places


@torch.no_grad()
def embed_names(names: list[str], teacher: Teacher, reporter: Reporter) -> Tensor:
    """Embed names as those of drawings, [V, D], unit rows."""
    parts = []
    with reporter.stage("searching the memory", len(names)) as progress:
        for start in range(0, len(names), BATCH_SIZE):
            texts = [NAME_TEXT.format(name) for name in names[start : start + BATCH_SIZE]]
            parts.append(teacher.embed_texts(texts))
            progress.advance(len(texts))
    return torch.cat(parts)


def near_names(name_VD: Tensor, class_KD: Tensor, has_prompt: list[bool]) -> list[list[int]]:
    """Find the names that lie nearer to a class than to the others; for each, nearest first."""
    similarity_KV = (class_KD @ name_VD.T).cpu()
    owner_V = similarity_KV.argmax(0)
    found = []
    for label, (similarity_V, prompted) in enumerate(zip(similarity_KV, has_prompt, strict=True)):
        least = MIN_SIMILARITY_TO_PROMPT if prompted else MIN_SIMILARITY
        is_near_V = (similarity_V >= least) & (owner_V == label)
        order_V = similarity_V.argsort(descending=True, stable=True)
        found.append(order_V[is_near_V[order_V]].tolist())
    return found


def retrieve_drawings(teacher: Teacher, reporter: Reporter) -> tuple[Tensor, ...]:
    """Find the drawings of each class in which the teacher sees it.

    Returns:
        For each class uint8 [M, C, P, P], on the CPU, nearest names first; M may be 0.

    Raises:
        ConfigError: the memory is incomplete.
    """
    sheets = read_sheets()
    places = distinct_names(sheets)
    names = list(places)
    name_VD = embed_names(names, teacher, reporter)
    class_KD = F.normalize(teacher.head_KD.float(), dim=1)
    found = [
        [place for number in near for place in places[names[number]]]
        for near in near_names(name_VD, class_KD, [bool(p) for p in teacher.classes.prompts])
    ]
    kept: list[dict[int, Tensor]] = [{} for _ in found]
    total = sum(len(near) for near in found)
    with torch.no_grad(), reporter.stage("looking at the drawings", total) as progress:
        for label_M, rank_M, rgba_MCPP in _drawings_of(sheets, found):
            shown_MD = teacher.embed_images(_on_white(rgba_MCPP, teacher))
            is_seen_M = _shows(shown_MD, label_M.to(teacher.device), class_KD, name_VD).cpu()
            for row in is_seen_M.nonzero().squeeze(1).tolist():
                kept[int(label_M[row])][int(rank_M[row])] = rgba_MCPP[row]
            progress.advance(len(label_M))
    none = torch.zeros((0, 4, sheets[0].side_px, sheets[0].side_px), dtype=torch.uint8)
    return tuple(
        torch.stack([drawings[rank] for rank in sorted(drawings)[:MAX_DRAWINGS]])
        if drawings
        else none
        for drawings in kept
    )


def _shows(shown_MD: Tensor, label_M: Tensor, class_KD: Tensor, name_VD: Tensor) -> Tensor:
    """Whether the teacher sees the asked class: first of the list, and high among all names."""
    similarity_MK = shown_MD @ class_KD.T
    own_M1 = similarity_MK.gather(1, label_M[:, None])
    num_better_M = (shown_MD @ name_VD.T > own_M1).sum(1)
    return (similarity_MK.argmax(1) == label_M) & (num_better_M < MAX_RANK)


def _on_white(rgba_MCPP: Tensor, teacher: Teacher) -> Tensor:
    rgba = rgba_MCPP.to(teacher.device).float() / 255
    image = rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:]
    size = (teacher.image_size_px,) * 2
    return F.interpolate(image, size, mode="bilinear", antialias=True)


def _drawings_of(
    sheets: tuple[Sheet, ...], found: list[list[Place]]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield labels, ranks in `found` and drawings, sheet by sheet, a few at a time."""
    for at, sheet in enumerate(sheets):
        wanted = [
            (label, rank, number)
            for label, places in enumerate(found)
            for rank, (place, number) in enumerate(places)
            if place == at
        ]
        if not wanted:
            continue
        label_M, rank_M, number_M = torch.tensor(wanted).T
        rgba_MCPP = torch.from_numpy(sheet.drawings(number_M.numpy())).permute(0, 3, 1, 2)
        for start in range(0, len(wanted), BATCH_SIZE):
            part = slice(start, start + BATCH_SIZE)
            yield label_M[part], rank_M[part], rgba_MCPP[part]
