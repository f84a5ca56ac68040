"""Contrastive-Prompt: learn styles in the teacher's text space; no image is needed.

An instance-level loss makes styles repel each other, a class-level loss keeps every class
recognisable in every style (PromptStyler, ICCV 2023). All styles are learnt at once, as in DiPEx.

Shape suffixes: S styles, K classes, N pairs of class and style drawn in a step, T tokens,
W token-embedding width, D embedding width.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_edge.config.settings import PromptConfig
from dfkd_edge.prompts.style_slot import StyledPrompts

MAX_CLASSES_PER_STEP = 32
"""The class-level loss takes so many classes a step, each in one style; or as many as there are
styles, if that is more, so that every style meets a class. A step of 1,000 classes costs as one of
32."""


def instance_loss(embedded_SD: Tensor) -> Tensor:
    """Mean |cosine| over pairs of different styles: 0 where all are at right angles."""
    num_styles = len(embedded_SD)
    off_diagonal_SS = (embedded_SD @ embedded_SD.T).fill_diagonal_(0).abs()
    return off_diagonal_SS.sum() / max(num_styles * (num_styles - 1), 1)


def draw_pairs(
    num_classes: int, num_styles: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Pair classes with styles, each as often as any other or once more; returns both, [N]."""
    num_pairs = max(min(num_classes, MAX_CLASSES_PER_STEP), num_styles)

    def rounds(count: int) -> Tensor:
        turns = -(-num_pairs // count)
        parts = [torch.randperm(count, generator=generator) for _ in range(turns)]
        return torch.cat(parts)[:num_pairs]

    return rounds(num_classes), rounds(num_styles)


def learn_styles(
    prompts: StyledPrompts,
    config: PromptConfig,
    generator: torch.Generator,
    on_step: Callable[[int, dict[str, float]], None],
) -> Tensor:
    """Learn the styles; returns [S, W]."""
    teacher = prompts.teacher
    table_VW = teacher.token_embedding.weight
    scale = float(table_VW.std())
    # at the length of real tokens, and with a rate in the same unit, whatever the text tower
    start_SW = torch.randn((config.num_styles, table_VW.shape[1]), generator=generator) * scale
    style_SW = nn.Parameter(start_SW.to(teacher.device))
    optimiser = torch.optim.Adam([style_SW], lr=config.learning_rate * scale)
    with torch.enable_grad():
        for step in range(config.num_iterations):
            style_loss = instance_loss(prompts.embed_styles(style_SW))
            class_N, style_N = draw_pairs(prompts.num_classes, config.num_styles, generator)
            class_N, style_N = class_N.to(teacher.device), style_N.to(teacher.device)
            pair_ND = prompts.embed_pairs(class_N, style_SW[style_N])
            class_loss = F.cross_entropy(teacher.logits(pair_ND), class_N)
            optimiser.zero_grad()
            (style_loss + class_loss).backward()
            optimiser.step()
            losses = {"style_loss": style_loss, "content_loss": class_loss}
            on_step(step, {name: float(loss.detach()) for name, loss in losses.items()})
    return style_SW.detach()
