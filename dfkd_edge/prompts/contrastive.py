"""Contrastive-Prompt: learn K styles in the teacher's text space; no image is needed.

All styles are learnt jointly (DiPEx's variant of PromptStyler, ICCV 2023): an instance-level loss
makes styles repel each other, a class-level loss keeps every class recognisable in every style.

Shape suffixes: S styles, K classes, M classes drawn in a step, T tokens, W token-embedding width,
D embedding width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_edge.config import PromptConfig
from dfkd_edge.teacher import Teacher

PLACEHOLDER = "*"
STYLE_TEMPLATE = "a * style of a"
CLASS_TEMPLATE = "a * style of a {}"
MAX_CLASSES_PER_STEP = 32
"""Class-level loss on at most so many classes a step, so that 1,000 classes cost as 32."""


class StyledPrompts:
    """Tokenised prompts with one slot for a style vector."""

    def __init__(self, teacher: Teacher) -> None:
        """Tokenise the templates once and find the slot."""
        self.teacher = teacher
        names = teacher.classes.names
        self.class_tokens_KT = self._tokens([CLASS_TEMPLATE.format(name) for name in names])
        self.style_tokens_1T = self._tokens([STYLE_TEMPLATE])
        self.placeholder = self._placeholder_id()

    def _tokens(self, texts: list[str]) -> Tensor:
        tokens: Tensor = self.teacher.tokenizer(texts)
        return tokens.to(self.teacher.device)

    def _placeholder_id(self) -> int:
        with_slot: list[int] = self._tokens([f"a {PLACEHOLDER} a"])[0].tolist()
        without = self._tokens(["a a"])[0].tolist()
        return next(t for t in with_slot if t not in without)

    def embed_styles(self, style_SW: Tensor) -> Tensor:
        """Embed "a S style of a" for every style; returns [S, D]."""
        tokens_ST = self.style_tokens_1T.expand(len(style_SW), -1)
        return self.teacher.embed_tokens(tokens_ST, tokens_ST == self.placeholder, style_SW)

    def embed_pairs(self, class_N: Tensor, style_NW: Tensor) -> Tensor:
        """Embed "a S style of a class" for pairs of class and style; returns [N, D]."""
        tokens_NT = self.class_tokens_KT[class_N]
        mask_NT = (tokens_NT == self.placeholder) & (
            (tokens_NT == self.placeholder).cumsum(1) == 1  # a class name may hold the sign too
        )
        return self.teacher.embed_tokens(tokens_NT, mask_NT, style_NW)


def contrastive_prompts(
    teacher: Teacher,
    config: PromptConfig,
    generator: torch.Generator,
    on_step: Callable[[int, dict[str, float]], None],
) -> tuple[Tensor, list[str]]:
    """Learn the styles and embed every class in every style.

    Returns:
        embedding_KSD (unit) and a label for each style: the words nearest to it.
    """
    prompts = StyledPrompts(teacher)
    table_VW = teacher.token_embedding.weight
    scale = float(table_VW.std())
    start_SW = torch.randn((config.num_styles, table_VW.shape[1]), generator=generator) * scale
    style_SW = nn.Parameter(start_SW.to(teacher.device))
    optimiser = torch.optim.Adam([style_SW], lr=config.learning_rate * scale)
    num_classes = len(teacher.classes.names)
    drawn = min(num_classes, MAX_CLASSES_PER_STEP)
    with torch.enable_grad():
        for step in range(config.num_iterations):
            embedded_SD = prompts.embed_styles(style_SW)
            off_diagonal_SS = (embedded_SD @ embedded_SD.T).fill_diagonal_(0).abs()
            style_loss = off_diagonal_SS.sum() / max(config.num_styles * (config.num_styles - 1), 1)
            class_M = torch.randperm(num_classes, generator=generator)[:drawn].to(teacher.device)
            style_M = torch.randint(0, config.num_styles, (drawn,), generator=generator)
            pair_MD = prompts.embed_pairs(class_M, style_SW[style_M.to(teacher.device)])
            logits_MK = teacher.logits(pair_MD)
            content_loss = F.cross_entropy(logits_MK, class_M)
            loss = style_loss + content_loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            values = {
                "style_loss": float(style_loss.detach()),
                "content_loss": float(content_loss.detach()),
            }
            on_step(step, values)
    embedding_KSD = embed_all(prompts, style_SW.detach(), num_classes)
    return embedding_KSD, nearest_words(teacher, style_SW.detach())


@torch.no_grad()
def embed_all(prompts: StyledPrompts, style_SW: Tensor, num_classes: int) -> Tensor:
    """Embed every class in every style, a bounded number at a time; returns [K, S, D]."""
    num_styles = len(style_SW)
    class_N = torch.arange(num_classes, device=style_SW.device).repeat_interleave(num_styles)
    style_N = torch.arange(num_styles, device=style_SW.device).repeat(num_classes)
    parts = [
        prompts.embed_pairs(c, style_SW[s])
        for c, s in zip(class_N.split(256), style_N.split(256), strict=True)
    ]
    return torch.cat(parts).view(num_classes, num_styles, -1)


@torch.no_grad()
def nearest_words(teacher: Teacher, style_SW: Tensor, num_words: int = 3) -> list[str]:
    """Label each style by the vocabulary words nearest to its vector."""
    decoder = getattr(teacher.tokenizer, "decoder", None)
    if decoder is None:
        return [f"style {index + 1}" for index in range(len(style_SW))]
    words = {i: t[:-4] for i, t in decoder.items() if t.endswith("</w>") and t[:-4].isalpha()}
    ids = torch.tensor([i for i, word in words.items() if len(word) > 3], device=style_SW.device)
    table_VW = F.normalize(teacher.token_embedding.weight[ids], dim=1)
    nearest_SN = (F.normalize(style_SW, dim=1) @ table_VW.T).topk(num_words, dim=1).indices
    return [" ".join(words[int(ids[i])] for i in row) for row in nearest_SN]
