"""How a teacher guides images towards a prompt: losses on random views, differentiable in pixels.

Shape suffixes: N images, K classes, V views, D embedding width, C = 3 channels, H rows, W columns.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_edge.networks.draws import drawn
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.networks.views import colour_jitter, geometric_view, uniform

CLASS_ANCHOR_WEIGHT = 1.0  # The best coefficient in Wei et al., ICLR 2025
VIEW_NOISE = 0.1  # Largest deviation of the noise on a view, of pixels in [0, 1] (VQGAN-CLIP)


def matching_loss(embedding_ND: Tensor, target_ND: Tensor) -> Tensor:
    """Squared geodesic distance 2 arcsin^2(|e - t| / 2) of unit rows, mean over images."""
    # the derivative of arcsin is infinite at 1, where both are opposite
    chord_N: Tensor = (embedding_ND - target_ND).norm(dim=1).div(2).clamp(max=1 - 1e-6)
    distance_N: Tensor = 2 * chord_N.arcsin().square()
    return distance_N.mean()


def guidance_loss(
    embedding_ND: Tensor,
    target_ND: Tensor,
    label_N: Tensor,
    teacher: Teacher,
    anchor_weight: float = CLASS_ANCHOR_WEIGHT,
) -> Tensor:
    """Distance to the prompt plus the class anchor: cross-entropy under the zero-shot head."""
    anchor = F.cross_entropy(teacher.logits(embedding_ND), label_N)
    return matching_loss(embedding_ND, target_ND) + anchor_weight * anchor


def recognised(logits_NK: Tensor, label_N: Tensor, margin: float) -> Tensor:
    """Whether the asked class comes first [N], ahead by at least `margin` of the probability."""
    is_first_N = logits_NK.argmax(1) == label_N
    if not margin or logits_NK.shape[1] == 1:
        return is_first_N
    best_N2 = logits_NK.softmax(1).topk(2).values
    return is_first_N & (best_N2[:, 0] - best_N2[:, 1] >= margin)


def augmented_views(
    image_NCHW: Tensor, num_views: int, size_px: int, generator: torch.Generator
) -> Tensor:
    """Draw views as VQGAN-CLIP does: crop, rotate, flip, slight colour jitter, noise.

    Returns:
        [V * N, C, size_px, size_px]: the first views of all images, then the second ones, ...
    """
    view_NCHW = geometric_view(image_NCHW.repeat(num_views, 1, 1, 1), size_px, generator)
    view_NCHW = colour_jitter(view_NCHW, generator, strength=0.1, min_saturation=0.9)
    strength_N111 = uniform((len(view_NCHW), 1, 1, 1), 0, VIEW_NOISE, generator)
    noise_NCHW = drawn(torch.randn, view_NCHW.shape, generator)
    return view_NCHW + (strength_N111 * noise_NCHW).to(view_NCHW)


def total_variation(image_NCHW: Tensor) -> Tensor:
    """Mean square difference of neighbouring pixels."""
    down = image_NCHW.diff(dim=2).square().mean()
    across = image_NCHW.diff(dim=3).square().mean()
    return down + across
