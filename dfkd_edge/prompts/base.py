"""Base-Prompt: one sentence a class, the control that every diversification must beat."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from dfkd_edge.teacher import Teacher

BASE_TEMPLATE = "a photo of a {}"


def base_prompts(teacher: Teacher) -> tuple[Tensor, list[str]]:
    """Embed "a photo of a {class}", or the class's own prompt.

    Returns:
        embedding_KSD (unit, S = 1 style) and the style's label.
    """
    classes = teacher.classes
    texts = [
        prompt or BASE_TEMPLATE.format(name)
        for name, prompt in zip(classes.names, classes.prompts, strict=True)
    ]
    return F.normalize(teacher.embed_texts(texts), dim=1)[:, None], ["a photo of a"]
