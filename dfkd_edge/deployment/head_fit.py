"""A text head, turned a little until the student answers as its teacher does; no other weight is.

A student that has learnt one list sees images of other names a little beside where the teacher puts
them, and text vectors alone do not know in which direction. The named drawings of the embedded
memory show it: each class of the new list is seen in some, by both networks, and the head follows
the teacher's answers. Classes of the run keep theirs by its own images. On CIFAR-10, of which the
run had learnt two classes, it took the student from 0.57 of the teacher's top-1 (FP32) to 0.71
(`tests/benchmarks/swap_classes.py`).

Shape suffixes: N images, D embedding width, K classes, P side of a drawing, H rows, W columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_edge.artifacts import SurrogateSet
from dfkd_edge.config.settings import MINI, DistillationConfig
from dfkd_edge.distillation.step import soft_target_losses
from dfkd_edge.drawings.memory import DrawingMemory, retrieve_drawings
from dfkd_edge.interfaces import Reporter
from dfkd_edge.networks.students import Student
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.seeding import derived_seed
from dfkd_edge.synthesis.retrieval import inked, on_background, placed
from dfkd_edge.synthesis.scenes import in_scenes

IMAGES_A_CLASS, MAX_IMAGES = 48, 2_400  # Both networks see 480 in some seconds of a core (ours)
IMAGES_TOGETHER = 64
SMALL_PX = 32
"""Side of a photograph at which few details are left: there the student follows its teacher least,
and a head that was fitted to plain drawings alone helps least (ours, examples/measurements)."""
PULL = 0.03
"""How strongly the head is held to the text, in units of the logit scale: a third of it fits drawn
domains better and photographs worse (ours)."""
NUM_ITERATIONS = 60
TEMPERATURE = DistillationConfig().temperature


@dataclass(frozen=True, slots=True)
class FittedHead:
    """The head, and what it was fitted to."""

    head_KD: Tensor  # Unit rows
    num_images: int  # Of drawings; those of the run are not counted
    drawn: tuple[str, ...]  # Names that are not of the run and have drawings


@dataclass(frozen=True, slots=True)
class HeadFit:
    """Teacher and student of the new list, and the run whose images its classes have."""

    teacher: Teacher
    student: Student
    surrogates: SurrogateSet  # As the run made them
    learnt: Sequence[int]  # Place in the run's list of each class of the new one; -1: it has none
    seed: int

    def fit(self, reporter: Reporter) -> FittedHead:
        """Show both networks drawings of new names and images of old ones, and turn the head."""
        if self.teacher.name != MINI:  # nothing is known of what another one sees in drawings
            return FittedHead(self.teacher.head_KD, 0, ())
        generator = torch.Generator().manual_seed(derived_seed(self.seed, "head"))
        found = retrieve_drawings(DrawingMemory(self.teacher), only_named=True)
        new = [k for k, place in enumerate(self.learnt) if place < 0 and len(found[k])]
        old = [k for k, place in enumerate(self.learnt) if place >= 0]
        names = self.teacher.classes.names
        drawn, num = tuple(names[k] for k in new), min(IMAGES_A_CLASS, MAX_IMAGES // len(names))
        if not (drawn and num):
            return FittedHead(self.teacher.head_KD, 0, ())
        seen: list[tuple[Tensor, Tensor]] = []
        with reporter.stage("fitting the head to drawings", len(new) + len(old)) as progress:
            for k in new:
                seen.append(self._see(self._drawn(found[k], num, generator)))
                progress.advance(1, names[k])
            for k in old:
                seen.append(self._see(self._learnt(self.learnt[k], num)))
                progress.advance(1, names[k])
        teacher_ND, student_ND = (torch.cat(part) for part in zip(*seen, strict=True))
        head_KD = fitted(self.teacher, teacher_ND, student_ND)
        return FittedHead(head_KD, num * len(new), drawn)

    @torch.no_grad()
    def _see(self, image_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Embed images in [0, 1] by teacher and student."""
        parts = image_NCHW.split(IMAGES_TOGETHER)
        towers = self.teacher.embed_images, self.student.embed_images
        teacher_ND, student_ND = (torch.cat([embed(part) for part in parts]) for embed in towers)
        return teacher_ND, student_ND

    def _drawn(self, rgba_MCPP: Tensor, num: int, generator: torch.Generator) -> Tensor:
        """Show the drawings of a class, each as often as any other: half of them on plain
        backgrounds, half in scenes as small photographs would show them.
        """
        side_px = self.surrogates.images.shape[1]
        plain, photographed = (
            placed(rgba_MCPP[torch.arange(n) % len(rgba_MCPP)].float() / 255, side_px, generator)
            for n in (num - num // 2, num // 2)
        )
        drawing = torch.cat((inked(photographed, generator), photographed[:, 3:]), 1)
        behind = on_background(photographed, generator)
        # what stands aside or behind is of the class too: another one would have to be answered
        scenes = in_scenes(drawing, drawing.flip(0), behind.flip(0), generator)
        return torch.cat([on_background(plain, generator), _small(scenes)])

    def _learnt(self, place: int, num: int) -> Tensor:
        """Take images of a class of the run that were learnt from."""
        mine_N = (self.surrogates.class_index == place) & ~self.surrogates.is_heldout
        rows = np.random.default_rng(self.seed).permutation(np.flatnonzero(mine_N))[:num]
        pixels = torch.from_numpy(self.surrogates.images.rows(rows))
        return pixels.permute(0, 3, 1, 2).float() / 255


def _small(image_NCHW: Tensor) -> Tensor:
    """Shrink images, and enlarge them to the size that they had."""
    if not len(image_NCHW):
        return image_NCHW
    small = F.interpolate(image_NCHW, (SMALL_PX, SMALL_PX), mode="area")
    return F.interpolate(small, image_NCHW.shape[2:], mode="bilinear")


def fitted(teacher: Teacher, teacher_ND: Tensor, student_ND: Tensor) -> Tensor:
    """Turn the rows of the zero-shot head until the student's answers are the teacher's, [K, D]."""
    text_KD, scale = teacher.head_KD, teacher.logit_scale
    teacher_NK = teacher.logits(teacher_ND)
    change_KD = torch.zeros_like(text_KD).contiguous().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [change_KD], max_iter=NUM_ITERATIONS, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        head_KD = F.normalize(text_KD + change_KD, dim=1)
        losses_N = soft_target_losses(scale * student_ND @ head_KD.T, teacher_NK, TEMPERATURE)
        total = losses_N.mean() + PULL * scale * change_KD.square().sum()
        total.backward()
        return total

    optimiser.step(loss)
    return F.normalize(text_KD + change_KD.detach(), dim=1)
