"""Base-Prompt: one sentence a class; the control that every diversification must beat."""

from __future__ import annotations

from torch import Tensor

from dfkd_edge.networks.teacher import Teacher

BASE_TEMPLATE = "a photo of a {}"


def base_prompts(teacher: Teacher) -> Tensor:
    """Embed "a photo of a {class}", or the class's own prompt; returns [K, S, D], S = 1 style."""
    classes = teacher.classes
    texts = [
        prompt or BASE_TEMPLATE.format(name)
        for name, prompt in zip(classes.names, classes.prompts, strict=True)
    ]
    return teacher.embed_texts(texts)[:, None]
