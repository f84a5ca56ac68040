"""What the student is asked to match: softened class probabilities and the teacher's features.

Shape suffixes: N images, K classes, D embedding width.
"""

import torch.nn.functional as F
from torch import Tensor


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
    # "mean" would divide by the number of classes too
    divergence = F.kl_div(student_log_NK, teacher_log_NK, reduction="batchmean", log_target=True)
    return divergence * temperature**2


def feature_distances(student_ND: Tensor, teacher_ND: Tensor) -> Tensor:
    """1 - cosine of unit embeddings (CLIP-KD's feature mimicry), [N], 0 to 2."""
    return 1 - (student_ND * teacher_ND).sum(1)
