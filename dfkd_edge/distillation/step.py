"""One step of a student towards the teacher, for distillation and for the INT8 fine-tune.

The student is asked to match softened class probabilities and the teacher's features.

Shape suffixes: N views, C = 3 channels, H rows, W columns, D embedding width, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_edge.config.settings import DistillationConfig
from dfkd_edge.networks.students import Student
from dfkd_edge.networks.teacher import Teacher

MAX_GRADIENT_NORM = 5.0  # Longer gradients are shortened to it (ours)


@dataclass(frozen=True, slots=True)
class StepFigures:
    """What a step found before it moved the weights, on its device: reading a number waits for it.

    A GPU that is waited for at every step idles while the next views are drawn.
    """

    loss: Tensor
    soft_target_loss: Tensor
    distance_N: Tensor  # Feature distance of each view
    agreement: Tensor  # Share of the views with the teacher's top-1


def soft_target_loss(student_NK: Tensor, teacher_NK: Tensor, temperature: float) -> Tensor:
    """KL divergence of softened probabilities (Hinton et al., 2015), mean over images.

    The temperature divides the logits of both; the loss is multiplied by its square, so that the
    size of the gradient does not depend on it.
    """
    student_log_NK = (student_NK / temperature).log_softmax(1)
    teacher_log_NK = (teacher_NK / temperature).log_softmax(1)
    # "mean" would divide by the number of classes too
    divergence = F.kl_div(student_log_NK, teacher_log_NK, reduction="batchmean", log_target=True)
    return divergence * temperature**2


def feature_distances(student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
    """1 - cosine of unit embeddings (CLIP-KD's feature mimicry), [N], 0 to 2."""
    return 1 - (student_ND * teacher_ND).sum(1)


def take_step(
    embed: Callable[[Tensor], Tensor],
    student: Student,
    teacher: Teacher,
    view_NCHW: Tensor,
    optimiser: torch.optim.Optimizer,
    config: DistillationConfig,
) -> StepFigures:
    """Move the student's weights once; the teacher labels the views, in [0, 1], themselves.

    `embed` is the student's `embed_images`, in the precision wanted.
    """
    with torch.no_grad():
        teacher_ND = teacher.embed_images(view_NCHW)
        teacher_NK = teacher.logits(teacher_ND)
    student_ND = embed(view_NCHW)
    student_NK = student.logits(student_ND)
    soft = soft_target_loss(student_NK, teacher_NK, config.temperature)
    distance_N = feature_distances(student_ND, teacher_ND)
    loss = config.soft_target_weight * soft + config.feature_weight * distance_N.mean()
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(student.parameters(), MAX_GRADIENT_NORM)
    optimiser.step()
    agreement = (student_NK.argmax(1) == teacher_NK.argmax(1)).float().mean()
    return StepFigures(loss.detach(), soft.detach(), distance_N.detach(), agreement)
