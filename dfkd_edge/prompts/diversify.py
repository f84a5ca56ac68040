"""The prompt stage: class names -> PromptSet.

Shape suffixes: K classes, S styles, D embedding width, W token-embedding width, N prompts.
"""

import numpy as np
import torch
from torch import Tensor

from dfkd_edge.artifacts import Diversity, PromptSet
from dfkd_edge.config.settings import PromptConfig
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.prompts.style_names import STYLE_NAMES, listed_names, name_styles
from dfkd_edge.prompts.style_slot import StyledPrompts
from dfkd_edge.prompts.styles import learn_styles, mix_styles, random_styles
from dfkd_edge.prompts.vocabulary import read_style_words, word_vectors
from dfkd_edge.runs.context import StageContext
from dfkd_edge.seeding import stage_generator

STAGE = "prompts"
BASE = "a photo of a"
"""Base-Prompt: one sentence a class, the control that every diversification must beat."""
DRAWN_STYLES = {"mix": mix_styles, "random": random_styles}
"""Methods that draw their style vectors [S, W] in one go; `base` has none."""


def base_prompts(teacher: Teacher) -> Tensor:
    """Embed "a photo of a {class}", or the class's own prompt; returns [K, 1, D]."""
    names, prompts = teacher.classes.names, teacher.classes.prompts
    pairs = zip(names, prompts, strict=True)
    return teacher.embed_texts([prompt or f"{BASE} {name}" for name, prompt in pairs])[:, None]


@torch.no_grad()
def diversity(embedding_KSD: Tensor, head_KD: Tensor) -> Diversity:
    """Measure how much the styles of unit prompts differ and whether the classes survive them."""
    num_classes, num_styles, width = embedding_KSD.shape
    # the cosines of all pairs sum to the squared length of the sum of rows: no [K, S, S] in memory
    off_diagonal_K = embedding_KSD.sum(1).square().sum(1) - num_styles
    cosine = float((off_diagonal_K / max(num_styles * (num_styles - 1), 1)).mean())
    centred_ND = (embedding_KSD - embedding_KSD.mean(1, keepdim=True)).view(-1, width).double()
    energy_D = torch.linalg.eigvalsh(centred_ND.T @ centred_ND).clamp(min=0)  # rounding
    share_D = energy_D / energy_D.sum().clamp(min=1e-12)
    rank = float(torch.exp(-(share_D * share_D.clamp(min=1e-12).log()).sum()))
    right = sum(
        int(((embedding_SD @ head_KD.T).argmax(1) == label).sum())
        for label, embedding_SD in enumerate(embedding_KSD)
    )
    return Diversity(
        mean_pairwise_cosine=cosine if num_styles > 1 else 1.0,
        effective_rank=rank if num_styles > 1 else 1.0,
        class_consistency=right / (num_classes * num_styles),
    )


def require_styles(teacher: Teacher, config: PromptConfig) -> None:
    """Check that the teacher can take styles, and reads the words that are to be mixed.

    Raises:
        ConfigError: it cannot, or the list of words cannot be used.
    """
    if config.method != "base":
        StyledPrompts(teacher)
    if config.method == "mix":
        word_vectors(teacher, read_style_words(config.style_words))


def diversify_prompts(teacher: Teacher, config: PromptConfig, context: StageContext) -> PromptSet:
    """Make the prompts of every class and style, or read them when they are already there."""
    words = read_style_words(config.style_words) if config.method == "mix" else ()
    key = context.stage_key(STAGE, config, words, teacher.key)
    if context.run_dir.is_complete(STAGE, key):
        return PromptSet.load(context.run_dir.stage_dir(STAGE))
    steps = config.num_iterations if config.method == "contrastive" else 1
    with context.reporter.stage(f"making {config.method} prompts", steps) as progress:

        def on_step(step: int, losses: dict[str, Tensor]) -> None:
            progress.advance(1)
            if step % 10 == 9:
                values = {name: float(loss) for name, loss in losses.items()}
                context.run_dir.append_metrics(STAGE, step + 1, values)

        if config.method == "base":
            embedding_KSD, labels = base_prompts(teacher), [BASE]
        else:
            generator = stage_generator(context.seed, STAGE)
            sentences = StyledPrompts(teacher)
            if config.method == "contrastive":
                style_SW = learn_styles(sentences, config, generator, on_step)
            else:
                style_SW = DRAWN_STYLES[config.method](teacher, config, generator)
            embedding_KSD = sentences.embed_all(style_SW)
            names = listed_names(words or STYLE_NAMES, teacher.classes.names)
            labels = name_styles(sentences, style_SW, names)
        if config.method != "contrastive":
            progress.advance(1)
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
