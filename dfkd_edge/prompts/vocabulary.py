"""The token table as words: vectors of words for Mix-Prompt, and words that label vectors.

Shape suffixes: S styles, V vocabulary, L listed words, W token-embedding width.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_edge.errors import ConfigError
from dfkd_edge.networks.teacher import Teacher

MIN_LETTERS = 4  # Shorter words say nothing to a human


def vocabulary_words(tokenizer: Any) -> dict[int, str]:
    """Return the tokens that are whole English words, by id; none where a tokenizer has no list.

    Vocabularies mark a word by its end (`</w>`, CLIP's BPE), by its start (`▁` of sentencepiece,
    `Ġ` of byte-level BPE), or mark what is none (`##`, WordPiece).
    """
    inner = getattr(tokenizer, "tokenizer", tokenizer)
    if hasattr(inner, "get_vocab"):
        tokens: dict[int, str] = {number: token for token, number in inner.get_vocab().items()}
    else:
        tokens = getattr(inner, "decoder", {})
    if any(token.endswith("</w>") for token in tokens.values()):
        words = {i: t[:-4] for i, t in tokens.items() if t.endswith("</w>")}
    else:
        marker = next((m for m in ("▁", "Ġ") if any(t.startswith(m) for t in tokens.values())), "")
        words = {i: t[len(marker) :] for i, t in tokens.items() if t.startswith(marker)}
    return {i: w for i, w in words.items() if w.isascii() and w.isalpha() and len(w) >= MIN_LETTERS}


@torch.no_grad()
def nearest_words(teacher: Teacher, style_SW: Tensor, num_words: int = 3) -> list[str]:
    """Label each style by the vocabulary words nearest to its vector, by cosine."""
    table_VW = teacher.token_embedding.weight
    listed = [(i, w) for i, w in vocabulary_words(teacher.tokenizer).items() if i < len(table_VW)]
    if len(listed) < num_words:
        return [f"style {index + 1}" for index in range(len(style_SW))]
    id_L = torch.tensor([i for i, _ in listed], device=table_VW.device)
    words_LW = F.normalize(table_VW[id_L], dim=1)
    nearest_SN = (F.normalize(style_SW, dim=1) @ words_LW.T).topk(num_words, dim=1).indices
    return [" ".join(listed[int(n)][1] for n in row) for row in nearest_SN]


@torch.no_grad()
def word_vectors(teacher: Teacher, words: Sequence[str]) -> Tensor:
    """Token embedding of each word, the mean over all its sub-tokens; returns [L, W].

    Raises:
        ConfigError: the tokenizer drops a word altogether.
    """
    special = set(teacher.tokenise([""])[0].tolist())
    rows = []
    for word, tokens in zip(words, teacher.tokenise(words).tolist(), strict=True):
        own = [t for t in tokens if t not in special]
        if not own:
            raise ConfigError(
                f"the teacher's tokenizer does not read the style word '{word}'",
                where="prompts.style_words",
                hint="remove it",
            )
        rows.append(teacher.token_embedding.weight[own].mean(0))
    return torch.stack(rows)
