"""Exemplars: drawings in the embedded decoder's memory that images of named things start from.

The prior is small and has learnt the looks of few things. The memory holds openly licensed icons;
those whose name lies near a class in the teacher's text space, and in which the teacher sees that
class, are laid on backgrounds and take the place of a share of the prior's images. Retrieval for
synthesis: Blattmann et al., NeurIPS 2022; drawings used as they are: ours.

Shape suffixes: N images, M drawings, K classes, D embedding width, P side of a drawing in pixels,
C = 4 channels (RGBA), H rows, W columns.
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
from dfkd_edge.interfaces import Reporter, SynthesisBatch, Synthesizer
from dfkd_edge.synthesis.views import uniform
from dfkd_edge.teacher import Teacher

NAME_TEXT = "a drawing of a {}"
"""What the teacher reads of a drawing's name; a class is what the zero-shot head holds of it."""
MIN_SIMILARITY = 0.7
"""Cosine of names that may stand for a class: "horse head" for horse, not "dog" for a breed."""
MAX_DRAWINGS = 40
"""Drawings of a class, nearest names first."""
ENOUGH_DRAWINGS = 8
"""With fewer, proportionally fewer images come from them, or the student would learn those few."""
MIN_SIZE, MAX_ANGLE = 0.6, 0.26
"""Smallest side of a placed drawing, relative to the picture's; largest turn, in radians."""
TEXTS_TOGETHER = 64


@dataclass(frozen=True, slots=True)
class Sheet:
    """One picture of many drawings in rows, of one icon set."""

    path: Path
    names: tuple[str, ...]
    """Of each drawing, in reading order."""
    side_px: int
    num_columns: int

    def drawings(self, wanted: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Cut drawings out, uint8 [M, P, P, C]."""
        side = self.side_px
        with Image.open(self.path) as picture:
            pixels = np.asarray(picture.convert("RGBA"))
        corners = [divmod(int(number), self.num_columns) for number in wanted]
        cut = [pixels[r * side : (r + 1) * side, c * side : (c + 1) * side] for r, c in corners]
        return np.stack(cut)


def read_sheets(folder: Path = assets.EXEMPLARS) -> tuple[Sheet, ...]:
    """Read what the memory holds, without its pixels.

    Raises:
        ConfigError: the memory is missing.
    """
    try:
        index = json.loads((folder / "exemplars.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            "decoder is incomplete", where=str(folder), hint="install again"
        ) from error
    return tuple(
        Sheet(folder / f"{style}.webp", tuple(names), index["side_px"], index["num_columns"])
        for style, names in index["names"].items()
    )


def placed(rgba_NCPP: Tensor, side_px: int, generator: torch.Generator) -> Tensor:
    """Shrink, turn and flip each drawing and move it about, transparent around it.

    No two pictures of a drawing are alike, so that held-out ones differ from those trained on.

    Args:
        rgba_NCPP: float in [0, 1], not premultiplied.
        side_px: of what is returned.
        generator: draws size, place and angle.

    Returns:
        RGBA [N, C, side_px, side_px] in [0, 1], not premultiplied.
    """
    num = len(rgba_NCPP)
    stretch_N = 1 / uniform((num,), MIN_SIZE, 1, generator)
    flip_N = torch.where(uniform((num,), 0, 1, generator) < 0.5, -1.0, 1.0)
    angle_N = uniform((num,), -MAX_ANGLE, MAX_ANGLE, generator)
    shift_N2 = uniform((num, 2), -1, 1, generator) * (stretch_N - 1)[:, None]
    cos_N, sin_N = stretch_N * angle_N.cos(), stretch_N * angle_N.sin()
    row_x_N3 = torch.stack((cos_N * flip_N, -sin_N, shift_N2[:, 0]), 1)
    row_y_N3 = torch.stack((sin_N * flip_N, cos_N, shift_N2[:, 1]), 1)
    affine_N23 = torch.stack((row_x_N3, row_y_N3), 1).to(rgba_NCPP)
    grid = F.affine_grid(affine_N23, [num, 4, side_px, side_px], align_corners=False)
    alpha = rgba_NCPP[:, 3:]
    premultiplied = torch.cat((rgba_NCPP[:, :3] * alpha, alpha), 1)
    moved = F.grid_sample(premultiplied, grid, mode="bilinear", align_corners=False)
    colour, alpha = moved[:, :3], moved[:, 3:]
    return torch.cat(((colour / alpha.clamp(min=1e-3)).clamp(0, 1), alpha), 1)


def on_background(rgba_NCPP: Tensor, generator: torch.Generator) -> Tensor:
    """Lay drawings on white, plain or graded backgrounds; recolour one-colour symbols.

    Args:
        rgba_NCPP: float in [0, 1], not premultiplied.
        generator: draws colours.

    Returns:
        RGB images [N, 3, P, P] in [0, 1].
    """
    colour, alpha = rgba_NCPP[:, :3], rgba_NCPP[:, 3:]
    num, side = len(rgba_NCPP), rgba_NCPP.shape[-1]
    top, bottom = (uniform((num, 3, 1, 1), 0.2, 1, generator).to(colour) for _ in range(2))
    ramp = torch.linspace(0, 1, side).to(colour)[None, None, :, None]
    graded = (top + (bottom - top) * ramp).expand(-1, -1, -1, side)
    white = uniform((num, 1, 1, 1), 0, 1, generator).to(colour) < 0.45
    background = torch.where(white, torch.ones_like(graded), graded)
    flat = (colour.amax((1, 2, 3), keepdim=True) < 0.05) | (
        (colour * alpha).flatten(1).std(1)[:, None, None, None] < 0.01
    )
    ink = uniform((num, 3, 1, 1), 0.0, 0.55, generator).to(colour)
    ink = ink * (uniform((num, 1, 1, 1), 0, 1, generator).to(colour) < 0.6)
    colour = torch.where(flat, ink.expand_as(colour), colour)
    return colour * alpha + background * (1 - alpha)


def near_drawings(
    sheets: tuple[Sheet, ...], teacher: Teacher, reporter: Reporter
) -> list[list[tuple[int, int]]]:
    """Find the drawings whose names lie nearest to each class and nearer than to other classes.

    Returns:
        For each class (sheet, number in the sheet), nearest names first, at most MAX_DRAWINGS.
    """
    places: dict[str, list[tuple[int, int]]] = {}
    for at, sheet in enumerate(sheets):
        for number, name in enumerate(sheet.names):
            places.setdefault(name, []).append((at, number))
    names = list(places)
    class_KD = F.normalize(teacher.head_KD.float(), dim=1)
    parts = []
    with torch.no_grad(), reporter.stage("searching the memory", len(names)) as progress:
        for start in range(0, len(names), TEXTS_TOGETHER):
            texts = [NAME_TEXT.format(name) for name in names[start : start + TEXTS_TOGETHER]]
            parts.append((class_KD @ teacher.embed_texts(texts).T).cpu())
            progress.advance(len(texts))
    similarity_KM = torch.cat(parts, 1)
    owner_M = similarity_KM.argmax(0)
    found = []
    for label, similarity_M in enumerate(similarity_KM):
        near_M = (similarity_M >= MIN_SIMILARITY) & (owner_M == label)
        rows = near_M.nonzero().squeeze(1)
        rows = rows[similarity_M[rows].argsort(descending=True, stable=True)]
        found.append([place for row in rows for place in places[names[row]]][:MAX_DRAWINGS])
    return found


def recognised_drawings(teacher: Teacher, reporter: Reporter) -> tuple[Tensor, ...]:
    """Retrieve the drawings of each class and keep those in which the teacher sees it.

    Returns:
        For each class uint8 [M, C, P, P], on the CPU; M may be 0.

    Raises:
        ConfigError: the memory is missing.
    """
    sheets = read_sheets()
    found = near_drawings(sheets, teacher, reporter)
    side = sheets[0].side_px
    kept: list[list[Tensor]] = [[] for _ in found]
    generator = torch.Generator(teacher.device).manual_seed(0)
    total = sum(len(places) for places in found)
    with torch.no_grad(), reporter.stage("looking at the drawings", total) as progress:
        for label_M, rgba_MCPP in _drawings_of(sheets, found):
            image = on_background(rgba_MCPP.to(teacher.device).float() / 255, generator)
            size = (teacher.image_size_px,) * 2
            image = F.interpolate(image, size, mode="bilinear", antialias=True)
            seen_M = teacher.logits(teacher.embed_images(image)).argmax(1).cpu()
            for row in (seen_M == label_M).nonzero().squeeze(1).tolist():
                kept[int(label_M[row])].append(rgba_MCPP[row])
            progress.advance(len(label_M))
    none = torch.zeros((0, 4, side, side), dtype=torch.uint8)
    return tuple(torch.stack(drawings) if drawings else none for drawings in kept)


def _drawings_of(
    sheets: tuple[Sheet, ...], found: list[list[tuple[int, int]]]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield labels and drawings of one sheet after the other, a bounded number at a time."""
    for at, sheet in enumerate(sheets):
        wanted = [(label, n) for label, places in enumerate(found) for a, n in places if a == at]
        for start in range(0, len(wanted), TEXTS_TOGETHER):
            label_M, number_M = np.array(wanted[start : start + TEXTS_TOGETHER]).T
            rgba_MCPP = torch.from_numpy(sheet.drawings(number_M)).permute(0, 3, 1, 2)
            yield torch.from_numpy(label_M), rgba_MCPP


class RetrievalSynthesizer:
    """Takes images from drawings: a share, and those in which the teacher misses the class."""

    def __init__(
        self, inner: Synthesizer, drawings: tuple[Tensor, ...], teacher: Teacher, share: float,
        image_size_px: int,
    ) -> None:  # fmt: skip
        """Keep what a batch needs.

        Args:
            inner: makes the other images, of side image_size_px.
            drawings: of each class, uint8 [M, C, P, P].
            teacher: embeds what is made.
            share: of the images of a class that has enough drawings.
            image_size_px: side of the images.
        """
        self.inner, self.drawings, self.teacher, self.share = inner, drawings, teacher, share
        self.image_size_px = image_size_px
        count_K = torch.tensor([len(drawn) for drawn in drawings])
        self.enough_K = (count_K / ENOUGH_DRAWINGS).clamp(max=1)

    def __call__(self, batch: SynthesisBatch) -> tuple[Tensor, Tensor]:
        """Make a share from drawings, the rest by the inner synthesizer, and redraw its misses."""
        device, num, side = self.teacher.device, len(batch.label_N), self.image_size_px
        image_NCHW = torch.empty((num, 3, side, side), device=device)
        embedding_ND = torch.empty((num, batch.target_ND.shape[1]), device=device)

        def fill(rows_N: Tensor, make: Synthesizer) -> None:
            if rows_N.any():
                part = SynthesisBatch(
                    batch.target_ND[rows_N], batch.label_N[rows_N], batch.style_N[rows_N],
                    batch.generator,
                )  # fmt: skip
                image_NCHW[rows_N], embedding_ND[rows_N] = make(part)

        is_drawn_N = self._lucky(batch, self.share)
        fill(is_drawn_N, self._draw)
        fill(~is_drawn_N, self.inner)
        is_missed_N = self.teacher.logits(embedding_ND).argmax(1) != batch.label_N
        fill(~is_drawn_N & is_missed_N & self._lucky(batch, 1), self._draw)
        return image_NCHW, embedding_ND

    def _lucky(self, batch: SynthesisBatch, share: float) -> Tensor:
        """Draw a share of the rows, a smaller one of classes with few drawings."""
        luck_N = uniform((len(batch.label_N),), 0, 1, batch.generator)
        return luck_N < share * self.enough_K.to(luck_N)[batch.label_N]

    def _draw(self, batch: SynthesisBatch) -> tuple[Tensor, Tensor]:
        luck_N = uniform((len(batch.label_N),), 0, 1, batch.generator).tolist()
        chosen = [
            self.drawings[label][int(luck * len(self.drawings[label]))]
            for label, luck in zip(batch.label_N.tolist(), luck_N, strict=True)
        ]
        rgba_NCPP = torch.stack(chosen).to(self.teacher.device).float() / 255
        rgba_NCPP = placed(rgba_NCPP, self.image_size_px, batch.generator)
        image_NCHW = on_background(rgba_NCPP, batch.generator)
        with torch.no_grad():
            return image_NCHW, self.teacher.embed_images(image_NCHW)
