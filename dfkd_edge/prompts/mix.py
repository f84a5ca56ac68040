"""Mix-Prompt: each style is a random interpolation of style words in token-embedding space.

Weights as in DPStyler's prompt generator: Beta(0.1, 0.1), so that most words count fully or not at
all. There a word is its first sub-token; here it is the mean of all of them (ours).

Shape suffixes: S styles, L listed words, W token-embedding width.
"""

import numpy as np
import torch
from torch import Tensor

from dfkd_edge.config.settings import PromptConfig
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.prompts.style_words import read_style_words
from dfkd_edge.prompts.vocabulary import word_vectors

BETA = 0.1


def mixing_weights(num_styles: int, num_words: int, generator: torch.Generator) -> Tensor:
    """Draw Beta(0.1, 0.1) weights, normalised over the words; returns [S, L] on the CPU."""
    # torch's Beta takes no generator
    seed = int(torch.randint(2**62, (1,), generator=generator))
    beta_SL = np.random.default_rng(seed).beta(BETA, BETA, (num_styles, num_words))
    weight_SL = torch.from_numpy(beta_SL).float().clamp(min=1e-6)
    return weight_SL / weight_SL.sum(1, keepdim=True)


def mix_styles(teacher: Teacher, config: PromptConfig, generator: torch.Generator) -> Tensor:
    """Mix the style words; returns [S, W]."""
    word_LW = word_vectors(teacher, read_style_words(config.style_words))
    return mixing_weights(config.num_styles, len(word_LW), generator).to(word_LW) @ word_LW
