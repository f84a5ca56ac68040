"""What the student is asked to match: softened class probabilities and the teacher's features.

Shape suffixes: N images, K classes, D embedding width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from dfkd_edge.config.settings import DistillationConfig
from dfkd_edge.networks.students import Student
from dfkd_edge.networks.teacher import Teacher


def soft_target_loss(student_NK: Tensor, teacher_NK: Tensor, temperature: float) -> Tensor:
    """KL divergence of softened probabilities (Hinton et al., 2015), mean over images.

    Args:
        student_NK: logits.
        teacher_NK: logits.
        temperature: divides both; the loss is multiplied by its square, so that the size of the
            gradient does not depend on it.

    Returns:
        Scalar, 0 when both agree.
    """
    student_log_NK = (student_NK / temperature).log_softmax(1)
    teacher_log_NK = (teacher_NK / temperature).log_softmax(1)
    divergence = F.kl_div(student_log_NK, teacher_log_NK, reduction="batchmean", log_target=True)
    return divergence * temperature**2


def feature_distances(student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
    """1 - cosine of unit embeddings, [N], 0 to 2 each."""
    return 1 - (student_ND * teacher_ND).sum(1)


def feature_distance(student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
    """1 - cosine of unit embeddings, mean over images (CLIP-KD's feature mimicry); 0 to 2."""
    return 1 - (student_ND * teacher_ND).sum(1).mean()


@dataclass(frozen=True, slots=True)
class Distance:
    """How far the student is from the teacher on the views of a step."""

    loss: Tensor
    """Scalar: what is minimised, both terms by their weights."""
    soft_target: Tensor
    """Scalar."""
    feature: Tensor
    """Scalar."""
    feature_N: Tensor
    """Feature distance of each view, [N], without gradient."""
    agreement: float
    """Share of the views with the teacher's class."""


def compare(
    student: Student,
    student_ND: Tensor,
    teacher: Teacher,
    teacher_ND: Tensor,
    config: DistillationConfig,
) -> Distance:
    """Compare unit embeddings of the same views, and the logits that both make of them."""
    student_NK, teacher_NK = student.logits(student_ND), teacher.logits(teacher_ND)
    soft = soft_target_loss(student_NK, teacher_NK, config.temperature)
    feature = feature_distance(student_ND, teacher_ND)
    return Distance(
        loss=config.soft_target_weight * soft + config.feature_weight * feature,
        soft_target=soft,
        feature=feature,
        feature_N=feature_distances(student_ND, teacher_ND).detach(),
        agreement=float((student_NK.argmax(1) == teacher_NK.argmax(1)).float().mean()),
    )
