"""Random-Prompt: each style is a random vector with the statistics of the token table.

Each style picks one of three initialisers (DPStyler's prompt generator): normal, Xavier, Kaiming.
Draws are scaled to mean and deviation of the table in each dimension (ours), so that they lie where
the text tower has seen tokens.

Shape suffixes: S styles, W token-embedding width.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dfkd_edge.config.settings import PromptConfig
from dfkd_edge.networks.teacher import Teacher


def _normal(width: int, generator: torch.Generator) -> Tensor:
    return torch.randn(width, generator=generator)


def _xavier(width: int, generator: torch.Generator) -> Tensor:
    """Glorot and Bengio's uniform initialiser at unit variance: bounds +- sqrt(3)."""
    return (torch.rand(width, generator=generator) * 2 - 1) * math.sqrt(3)


def _kaiming(width: int, generator: torch.Generator) -> Tensor:
    """He's normal initialiser: the gain of sqrt(2) that makes up for a rectifier."""
    return torch.randn(width, generator=generator) * math.sqrt(2)


INITIALISERS: tuple[Callable[[int, torch.Generator], Tensor], ...] = (_normal, _xavier, _kaiming)


@torch.no_grad()
def random_styles(teacher: Teacher, config: PromptConfig, generator: torch.Generator) -> Tensor:
    """Draw the styles; returns [S, W]."""
    table_VW = teacher.token_embedding.weight
    picks = torch.randint(len(INITIALISERS), (config.num_styles,), generator=generator).tolist()
    drawn = [INITIALISERS[pick](table_VW.shape[1], generator) for pick in picks]
    return table_VW.mean(0) + torch.stack(drawn).to(table_VW) * table_VW.std(0)
