"""Images of drawings, in scenes or on plain backgrounds, in place of some of the prior's.

The prior is small and has learnt the looks of few things; a drawing keeps what it would blur.
Retrieval for synthesis: Blattmann et al., NeurIPS 2022, where it conditions the generator; that
the drawings are the images is ours.

Shape suffixes: N images, M drawings, K classes, D embedding width, P side of a drawing in pixels,
C = 4 channels (RGBA), H rows, W columns.
"""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_edge.interfaces import SynthesisBatch, SynthesizedImages, Synthesizer
from dfkd_edge.machine.process import give_back_memory
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.networks.views import chosen, uniform
from dfkd_edge.synthesis.scenes import in_scenes

ENOUGH_DRAWINGS = 8
"""With fewer a class has proportionally fewer images of them: the student would memorise them."""
MIN_SIZE = 0.6  # Smallest side of a placed drawing, relative to the picture's
MAX_ANGLE = 0.26  # Largest turn, in radians: 15 degrees
WHITE_SHARE = 0.45  # Of the backgrounds; the others are graded
INKED_SHARE = 0.6  # Of the symbols in one colour: these get another colour, the rest are black


def placed(rgba_NCPP: Tensor, side_px: int, generator: torch.Generator) -> Tensor:
    """Shrink, turn, flip and shift each drawing at random, with transparency around it.

    RGBA floats in [0, 1], not premultiplied, come in and go out, [N, C, side_px, side_px].
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
    # premultiplied while it is resampled: transparent pixels have a colour that must not bleed in
    premultiplied = torch.cat((rgba_NCPP[:, :3] * alpha, alpha), 1)
    moved = F.grid_sample(premultiplied, grid, mode="bilinear", align_corners=False)
    colour, alpha = moved[:, :3], moved[:, 3:]
    return torch.cat(((colour / alpha.clamp(min=1e-3)).clamp(0, 1), alpha), 1)  # 0 / 0 outside


def on_background(rgba_NCPP: Tensor, generator: torch.Generator) -> Tensor:
    """Lay drawings on white or vertically graded backgrounds, and give plain symbols a colour.

    RGBA floats in [0, 1], not premultiplied, become RGB images [N, 3, P, P] in [0, 1].
    """
    num, side = len(rgba_NCPP), rgba_NCPP.shape[-1]
    top, bottom = (uniform((num, 3, 1, 1), 0.2, 1, generator).to(rgba_NCPP) for _ in range(2))
    ramp = torch.linspace(0, 1, side).to(rgba_NCPP)[None, None, :, None]
    graded = (top + (bottom - top) * ramp).expand(-1, -1, -1, side)
    white = uniform((num, 1, 1, 1), 0, 1, generator).to(rgba_NCPP) < WHITE_SHARE
    background = torch.where(white, torch.ones_like(graded), graded)
    colour, alpha = inked(rgba_NCPP, generator), rgba_NCPP[:, 3:]
    return colour * alpha + background * (1 - alpha)


def inked(rgba_NCPP: Tensor, generator: torch.Generator) -> Tensor:
    """Give plain symbols a colour; returns the colours of all drawings, [N, 3, P, P].

    A symbol in one colour, often black on nothing, would else be the same picture every time.
    """
    colour, alpha = rgba_NCPP[:, :3], rgba_NCPP[:, 3:]
    num = len(rgba_NCPP)
    flat = (colour.amax((1, 2, 3), keepdim=True) < 0.05) | (
        (colour * alpha).flatten(1).std(1)[:, None, None, None] < 0.01
    )
    ink = uniform((num, 3, 1, 1), 0.0, 0.55, generator).to(colour)
    ink = ink * (uniform((num, 1, 1, 1), 0, 1, generator).to(colour) < INKED_SHARE)
    return torch.where(flat, ink.expand_as(colour), colour)


def any_of(rows: Tensor, num: int, generator: torch.Generator) -> Tensor:
    """Choose so many of some rows at random, [num]."""
    return chosen(uniform((num,), 0, 1, generator), len(rows))


@dataclass(frozen=True, slots=True)
class RetrievalSynthesizer:
    """Makes a share of the images of drawings, and those in which the teacher misses the class."""

    inner: Synthesizer  # Makes the other images
    drawings: tuple[Tensor, ...]  # Of each class, uint8 [M, C, P, P]
    teacher: Teacher  # Embeds what is made
    share: float  # Of the images of a class that has enough drawings
    scene_share: float  # Of the drawings, for those in which the teacher then sees the class
    image_size_px: int  # Side of the images, those of `inner` among them

    def __call__(self, batch: SynthesisBatch) -> SynthesizedImages:
        """Draw a share, make the rest by the inner synthesizer, and draw its misses anew."""
        device, num, side = self.teacher.device, len(batch.label_N), self.image_size_px
        made = SynthesizedImages(
            torch.empty((num, 3, side, side), device=device),
            torch.empty((num, batch.target_ND.shape[1]), device=device),
            torch.full((num,), -1, device=device),
        )

        def fill(rows_N: Tensor, make: Synthesizer, work: float) -> None:
            if rows_N.any():
                part = batch.of_rows(rows_N, work)
                for whole, of_rows in zip(made, make(part), strict=True):
                    if whole is not None and of_rows is not None:
                        whole[rows_N] = of_rows

        is_drawn_N = self._chosen(batch, self.share)
        fill(~is_drawn_N, self.inner, 1)
        give_back_memory()  # drawings need buffers of other sizes than the prior
        draw = partial(self._draw, made.image_NCHW[~is_drawn_N])
        fill(is_drawn_N, draw, 0)  # work 0: next to the prior drawings cost nothing
        is_missed_N = self.teacher.logits(made.embedding_ND).argmax(1) != batch.label_N
        fill(~is_drawn_N & is_missed_N & self._chosen(batch, 1), draw, 0)
        return made

    def _chosen(self, batch: SynthesisBatch, share: float) -> Tensor:
        """Choose a share of the rows at random, a smaller one of classes with few drawings."""
        luck_N = uniform((len(batch.label_N),), 0, 1, batch.generator)
        count_K = torch.tensor([len(drawn) for drawn in self.drawings])
        enough_K = (count_K / ENOUGH_DRAWINGS).clamp(max=1)
        return luck_N < share * enough_K.to(luck_N)[batch.label_N]

    def _draw(self, picture_MCHW: Tensor, batch: SynthesisBatch) -> SynthesizedImages:
        """Make an image of a random drawing of each class; pictures may lie behind it."""
        luck_N = uniform((len(batch.label_N),), 0, 1, batch.generator).tolist()
        of_class = [self.drawings[label] for label in batch.label_N.tolist()]
        numbers = [int(luck * len(many)) for many, luck in zip(of_class, luck_N, strict=True)]
        chosen = [many[number] for many, number in zip(of_class, numbers, strict=True)]
        rgba_NCPP = torch.stack(chosen).to(self.teacher.device).float() / 255
        rgba_NCHW = placed(rgba_NCPP, self.image_size_px, batch.generator)
        image_NCHW, embedding_ND = self._laid(rgba_NCHW, picture_MCHW, batch)
        return SynthesizedImages(
            image_NCHW, embedding_ND, torch.tensor(numbers, device=self.teacher.device)
        )

    @torch.no_grad()
    def _laid(
        self, rgba_NCHW: Tensor, picture_MCHW: Tensor, batch: SynthesisBatch
    ) -> tuple[Tensor, Tensor]:
        """Lay a share of the drawings in scenes, where the teacher still sees their classes.

        Returns:
            The images and the teacher's embeddings.
        """
        teacher, generator = self.teacher, batch.generator
        plain_NCHW = on_background(rgba_NCHW, generator)
        if not self.scene_share:
            return plain_NCHW, teacher.embed_images(plain_NCHW)
        luck_N = uniform((len(rgba_NCHW),), 0, 1, generator)
        drawing_N4HW = torch.cat((inked(rgba_NCHW, generator), rgba_NCHW[:, 3:]), 1)
        pictures = picture_MCHW if len(picture_MCHW) else plain_NCHW
        other_N4HW, behind_NCHW = (
            of[any_of(of, len(rgba_NCHW), generator)] for of in (drawing_N4HW, pictures)
        )
        scene_NCHW = in_scenes(drawing_N4HW, other_N4HW, behind_NCHW, generator)
        has_scene_N111 = (luck_N < self.scene_share)[:, None, None, None]
        image_NCHW = torch.where(has_scene_N111, scene_NCHW, plain_NCHW)
        embedding_ND = teacher.embed_images(image_NCHW)
        missed_N = teacher.logits(embedding_ND).argmax(1) != batch.label_N
        if missed_N.any():  # as they would be without scenes: else a class could lose its drawings
            image_NCHW[missed_N] = plain_NCHW[missed_N]
            embedding_ND[missed_N] = teacher.embed_images(plain_NCHW[missed_N])
        return image_NCHW, embedding_ND
