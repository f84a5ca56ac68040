"""The prompt stage: class names -> PromptSet.

Shape suffixes: K classes, S styles, D embedding width, N prompts.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dfkd_edge.artifacts import PromptSet
from dfkd_edge.config import PromptConfig
from dfkd_edge.interfaces import StageContext
from dfkd_edge.prompts.base import base_prompts
from dfkd_edge.prompts.contrastive import contrastive_prompts
from dfkd_edge.seeding import stage_generator
from dfkd_edge.teacher import Teacher

STAGE = "prompts"


def diversity(embedding_KSD: Tensor, head_KD: Tensor) -> dict[str, float]:
    """Measure how much the styles differ and whether the classes survive them.

    Returns:
        mean_pairwise_cosine among the styles of a class (lower is more diverse), effective_rank of
        the centred prompt embeddings, class_consistency (share of prompts nearest to their class).
    """
    num_classes, num_styles, _ = embedding_KSD.shape
    gram_KSS = embedding_KSD @ embedding_KSD.transpose(1, 2)
    off_diagonal = gram_KSS.sum((1, 2)) - num_styles
    cosine = float((off_diagonal / max(num_styles * (num_styles - 1), 1)).mean())
    centred_KSD = embedding_KSD - embedding_KSD.mean(1, keepdim=True)
    energy = torch.linalg.svdvals(centred_KSD.flatten(0, 1)).square()
    share = energy / energy.sum().clamp(min=1e-12)
    rank = float(torch.exp(-(share * share.clamp(min=1e-12).log()).sum()))
    guess_KS = (embedding_KSD @ head_KD.T).argmax(2)
    right_KS = guess_KS == torch.arange(num_classes, device=guess_KS.device)[:, None]
    return {
        "mean_pairwise_cosine": cosine if num_styles > 1 else 1.0,
        "effective_rank": rank if num_styles > 1 else 1.0,
        "class_consistency": float(right_KS.float().mean()),
    }


def diversify_prompts(teacher: Teacher, config: PromptConfig, context: StageContext) -> PromptSet:
    """Make the prompts of every class and style, or read them when they are already there."""
    key = context.stage_key(STAGE, config, teacher.name, teacher.classes)
    if context.run_dir.is_complete(STAGE, key):
        return PromptSet.load(context.run_dir.stage_dir(STAGE))
    steps = config.num_iterations if config.method == "contrastive" else 1
    with context.reporter.stage("learning prompt styles", steps) as progress:

        def on_step(step: int, values: dict[str, float]) -> None:
            progress.advance(1)
            if step % 10 == 9:
                context.run_dir.append_metrics(STAGE, step + 1, values)

        if config.method == "base":
            embedding_KSD, labels = base_prompts(teacher)
        else:
            generator = stage_generator(context.seed, STAGE)
            embedding_KSD, labels = contrastive_prompts(teacher, config, generator, on_step)
    num_classes, num_styles, width = embedding_KSD.shape
    prompts = PromptSet(
        class_names=teacher.classes.names,
        style_labels=tuple(labels),
        embeddings=embedding_KSD.reshape(-1, width).cpu().numpy().astype(np.float32),
        class_index=np.repeat(np.arange(num_classes), num_styles),
        style_index=np.tile(np.arange(num_styles), num_classes),
        diversity=diversity(embedding_KSD, teacher.head_KD),
    )
    files = prompts.save(context.run_dir.stage_dir(STAGE))
    context.run_dir.complete(STAGE, key, files)
    return prompts
