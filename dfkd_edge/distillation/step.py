"""One step of a student towards the teacher, for distillation and for the INT8 fine-tune.

The student is asked to match softened class probabilities and the teacher's features. A loss is a
sum over views divided by the number of the whole batch, so that gradients add up, over the parts
that memory allows and over the ranks that share a batch.

Shape suffixes: N views, C = 3 channels, H rows, W columns, D embedding width, K classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_edge.config.settings import DistillationConfig
from dfkd_edge.networks.gradient_sums import GradientSums
from dfkd_edge.networks.memory import Parts, in_parts
from dfkd_edge.networks.mixed_precision import Precision
from dfkd_edge.networks.students import Student
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.networks.tuning import Embed

MAX_GRADIENT_NORM = 5.0  # Longer gradients are shortened to it (ours)
See = Callable[[slice], tuple[Tensor, Tensor]]
"""Makes views in [0, 1] of some rows of a batch, and what the teacher sees in them."""


@dataclass(frozen=True, slots=True)
class StepFigures:
    """What a step found before it moved the weights, on its device: reading a number waits for it.

    A GPU that is waited for at every step idles while the next views are drawn. Single numbers are
    sums over the views at hand divided by the number of the whole batch: they add up.
    """

    loss: Tensor
    soft_target_loss: Tensor
    feature_distance: Tensor
    distance_N: Tensor  # Feature distance of each view
    agreement: Tensor  # Share of the views with the teacher's top-1

    @property
    def numbers(self) -> Tensor:
        """Loss, soft-target loss, feature distance and agreement."""
        each = self.loss, self.soft_target_loss, self.feature_distance, self.agreement
        return torch.stack(each)


def joined(parts: Sequence[StepFigures]) -> StepFigures:
    """Join the figures of the parts of a batch."""
    if len(parts) == 1:
        return parts[0]
    loss, soft, distance, agreement = torch.stack([part.numbers for part in parts]).sum(0)
    distance_N = torch.cat([part.distance_N for part in parts])
    return StepFigures(loss, soft, distance, distance_N, agreement)


def set_training_mode(student: torch.nn.Module, *, keep_statistics: bool) -> None:
    """Put a student into training mode, its BatchNorm statistics frozen on request.

    Those of start weights come from real pictures: with surrogates' in their place 150 steps took
    the default student from 0.365 to 0.191 on PACS photo.
    """
    student.train()
    if keep_statistics:
        for module in student.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()


def soft_target_losses(student_NK: Tensor, teacher_NK: Tensor, temperature: float) -> Tensor:
    """KL divergence of softened probabilities (Hinton et al., 2015) of each image, [N].

    The temperature divides the logits of both; the loss is multiplied by its square, so that the
    size of the gradient does not depend on it.
    """
    student_log_NK = (student_NK / temperature).log_softmax(1)
    teacher_log_NK = (teacher_NK / temperature).log_softmax(1)
    divergence_NK = F.kl_div(student_log_NK, teacher_log_NK, reduction="none", log_target=True)
    return divergence_NK.sum(1) * temperature**2


def feature_distances(student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
    """1 - cosine of unit embeddings (CLIP-KD's feature mimicry), [N], 0 to 2."""
    return 1 - (student_ND * teacher_ND).sum(1)


@dataclass(frozen=True, slots=True)
class Trainer:
    """A student that learns from what the teacher sees."""

    student: Student
    teacher: Teacher  # Whose head gives the logits
    optimiser: torch.optim.Optimizer
    precision: Precision
    config: DistillationConfig  # Temperature and weights of the losses
    embed: Embed  # The student's `embed_images`, which may be compiled
    sums: GradientSums
    """Of the parts of a batch, and of the ranks that share it."""

    def step(self, see: See, num: int, parts: Parts, batch_size: int) -> StepFigures:
        """Move the student's weights once, by `num` views of this rank's, of `batch_size` in all.

        Returns:
            The figures of this rank's views.
        """
        optimiser, sums = self.optimiser, self.sums
        parameters = [p for group in optimiser.param_groups for p in group["params"]]

        def add_gradients(rows: slice) -> StepFigures:
            made = self.look(*see(rows), batch_size)
            self.precision.backward(made.loss)
            sums.take(parameters)
            each = made.loss, made.soft_target_loss, made.feature_distance, made.distance_N
            return StepFigures(*(value.detach() for value in (*each, made.agreement)))

        def start_over() -> None:
            optimiser.zero_grad()
            sums.clear()

        start_over()
        made = in_parts(num, parts, add_gradients, start_over)
        # before the scale is taken away: one rank's overflow is then seen by all
        sums.close(parameters)
        self.precision.step(optimiser, MAX_GRADIENT_NORM)
        return joined(made)

    def look(self, view_NCHW: Tensor, teacher_ND: Tensor, batch_size: int) -> StepFigures:
        """Compare the student's eyes with the teacher's, with a gradient."""
        config = self.config
        with self.precision.autocast():
            student_ND = self.embed(view_NCHW)
        student_NK, teacher_NK = self.student.logits(student_ND), self.teacher.logits(teacher_ND)
        soft_N = soft_target_losses(student_NK, teacher_NK, config.temperature)
        distance_N = feature_distances(student_ND, teacher_ND)
        soft, distance = soft_N.sum() / batch_size, distance_N.sum() / batch_size
        loss = config.soft_target_weight * soft + config.feature_weight * distance
        agreement = (student_NK.argmax(1) == teacher_NK.argmax(1)).sum() / batch_size
        return StepFigures(loss, soft, distance, distance_N, agreement)
