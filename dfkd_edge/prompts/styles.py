"""Three ways to make styles, as vectors in the teacher's token-embedding space; no image is needed.

Mix-Prompt interpolates style words at random, Random-Prompt draws vectors with the statistics of
the token table (both after DPStyler's prompt generator). Contrastive-Prompt learns them: an
instance-level loss makes styles repel each other, a class-level loss keeps every class
recognisable in every style (PromptStyler, ICCV 2023); all are learnt at once, as in DiPEx.

Shape suffixes: S styles, K classes, L listed words, N pairs of class and style drawn in a step,
W token-embedding width, D embedding width, V vocabulary.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_edge.config.settings import PromptConfig
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.networks.transfer import sent
from dfkd_edge.prompts.style_slot import StyledPrompts
from dfkd_edge.prompts.vocabulary import read_style_words, word_vectors

BETA = 0.1  # Of both parameters, as DPStyler's: most words count fully or not at all
MAX_CLASSES_PER_STEP = 32
"""The class-level loss takes so many classes a step, each in one style; or as many as there are
styles, if more, so that every style meets a class. 1,000 classes cost as much as 32."""


def mixing_weights(num_styles: int, num_words: int, generator: torch.Generator) -> Tensor:
    """Draw Beta(0.1, 0.1) weights, normalised over the words; returns [S, L] on the CPU."""
    seed = int(torch.randint(2**62, (1,), generator=generator))  # torch's Beta takes no generator
    beta_SL = np.random.default_rng(seed).beta(BETA, BETA, (num_styles, num_words))
    weight_SL = torch.from_numpy(beta_SL).float().clamp(min=1e-6)  # a row may be all zeros
    return weight_SL / weight_SL.sum(1, keepdim=True)


def mix_styles(teacher: Teacher, config: PromptConfig, generator: torch.Generator) -> Tensor:
    """Mix the style words; returns [S, W].

    A word is the mean of its sub-tokens (ours); DPStyler takes the first one.
    """
    word_LW = word_vectors(teacher, read_style_words(config.style_words))
    return mixing_weights(config.num_styles, len(word_LW), generator).to(word_LW) @ word_LW


@torch.no_grad()
def random_styles(teacher: Teacher, config: PromptConfig, generator: torch.Generator) -> Tensor:
    """Draw each style with one of three initialisers, normal, Xavier or Kaiming; returns [S, W].

    Draws are scaled to mean and deviation of the table in each dimension (ours), so that they lie
    where the text tower has seen tokens.
    """
    table_VW = teacher.token_embedding.weight
    width, drawn = table_VW.shape[1], []
    for pick in torch.randint(3, (config.num_styles,), generator=generator).tolist():
        if pick == 1:  # Glorot and Bengio's uniform one at unit variance: bounds +- sqrt(3)
            drawn.append((torch.rand(width, generator=generator) * 2 - 1) * math.sqrt(3))
        else:  # 2 is He's: a gain of sqrt(2) makes up for what a rectifier cuts off
            gain = math.sqrt(2) if pick == 2 else 1
            drawn.append(torch.randn(width, generator=generator) * gain)
    return table_VW.mean(0) + torch.stack(drawn).to(table_VW) * table_VW.std(0)


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
    on_step: Callable[[int, dict[str, Tensor]], None],
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
            style_NW = style_SW[sent(style_N, teacher.device)]
            pair_ND = prompts.embed_pairs(class_N, style_NW)
            class_loss = F.cross_entropy(teacher.logits(pair_ND), sent(class_N, teacher.device))
            optimiser.zero_grad()
            (style_loss + class_loss).backward()
            optimiser.step()
            losses = {"style_loss": style_loss.detach(), "content_loss": class_loss.detach()}
            on_step(step, losses)  # still on the device: reading them waits for it
    return style_SW.detach()
