"""AdamW with warm-up and a half cosine."""

import math

import torch
from torch import nn

from dfkd_edge.config.settings import DistillationConfig


def make_optimiser(student: nn.Module, config: DistillationConfig) -> torch.optim.AdamW:
    """Decay weights, not biases and norms."""
    parameters = [p for p in student.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=config.peak_learning_rate,
    )


def learning_rate_at(step: int, config: DistillationConfig) -> float:
    """Rate of a step: linear warm-up to the peak, then a half cosine towards zero."""
    num_warmup_steps = min(config.num_warmup_steps, config.num_steps // 4)
    if step < num_warmup_steps:
        return config.peak_learning_rate * (step + 1) / num_warmup_steps
    span = config.num_steps - num_warmup_steps
    return (
        config.peak_learning_rate * 0.5 * (1 + math.cos(math.pi * (step - num_warmup_steps) / span))
    )
