"""One step of a student towards the teacher, for distillation and for the INT8 fine-tune.

The student is asked to match softened class probabilities and the teacher's features.

Shape suffixes: N views, C = 3 channels, H rows, W columns, D embedding width, K classes.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_edge.config.settings import DistillationConfig
from dfkd_edge.networks.mixed_precision import Precision
from dfkd_edge.networks.students import Student
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.networks.tuning import Embed

MAX_GRADIENT_NORM = 5.0  # Longer gradients are shortened to it (ours)


@dataclass(frozen=True, slots=True)
class StepFigures:
    """What a step found before it moved the weights, on its device: reading a number waits for it.

    A GPU that is waited for at every step idles while the next views are drawn. Single numbers are
    sums over the views at hand divided by the number of the whole batch: those of processes that
    share a batch add up.
    """

    loss: Tensor
    soft_target_loss: Tensor
    feature_distance: Tensor
    distance_N: Tensor  # Feature distance of each view
    agreement: Tensor  # Share of the views with the teacher's top-1


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

    def step(self, view_NCHW: Tensor, teacher_ND: Tensor, batch_size: int) -> StepFigures:
        """Move the student's weights once, by views in [0, 1] and the teacher's embeddings of them.

        The loss is a sum over the views divided by `batch_size`, the number in all processes.
        """
        config = self.config
        with self.precision.autocast():
            student_ND = self.embed(view_NCHW)
        student_NK, teacher_NK = self.student.logits(student_ND), self.teacher.logits(teacher_ND)
        soft_N = soft_target_losses(student_NK, teacher_NK, config.temperature)
        distance_N = feature_distances(student_ND, teacher_ND)
        soft, distance = soft_N.sum() / batch_size, distance_N.sum() / batch_size
        loss = config.soft_target_weight * soft + config.feature_weight * distance
        self.precision.descend(loss, self.optimiser, MAX_GRADIENT_NORM)
        agreement = (student_NK.argmax(1) == teacher_NK.argmax(1)).sum() / batch_size
        figures = (each.detach() for each in (loss, soft, distance, distance_N, agreement))
        return StepFigures(*figures)
