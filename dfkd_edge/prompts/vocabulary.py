"""Words: the lists that Mix-Prompt mixes, and the token table read as words.

Shape suffixes: S styles, V vocabulary, L listed words, W token-embedding width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_edge.errors import ConfigError
from dfkd_edge.networks.teacher import Teacher

NEUTRAL = (
    *("bright", "dark", "dim", "sunny", "foggy", "rainy", "snowy", "dusty", "stormy", "moonlit"),
    *("blurry", "sharp", "grainy", "faded", "glossy", "matte", "rough", "smooth", "soft", "harsh"),
    *("warm", "cold", "pale", "vivid", "monochrome", "colorful", "golden", "silver", "neon"),
    *("wooden", "metallic", "stone", "glass", "paper", "fabric", "clay", "marble", "plastic"),
    *("ancient", "modern", "vintage", "futuristic", "rustic", "minimal", "ornate", "abstract"),
)
"""Light, weather, surface, material and age: no word names a domain of the usual test suites."""
DOMAINS = (
    *NEUTRAL,
    *("photo", "realistic", "art", "painting", "watercolor", "cartoon", "anime", "sketch"),
    *("drawing", "doodle", "clipart", "infographic", "product", "rendering", "synthetic"),
)
"""Names domains of PACS, OfficeHome, DomainNet and VisDA: say so beside any figure on those."""
STYLE_WORD_LISTS = {"neutral": NEUTRAL, "domains": DOMAINS}


def read_style_words(name_or_path: str) -> tuple[str, ...]:
    """Look a list up by name, or read a text file: one word or phrase a line, `#` for comments.

    Raises:
        ConfigError: there is no such list or file, or it holds fewer than two words.
    """
    if name_or_path in STYLE_WORD_LISTS:
        return STYLE_WORD_LISTS[name_or_path]
    try:
        lines = Path(name_or_path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            "style words cannot be read",
            where=f"prompts.style_words={name_or_path}",
            hint=f"a UTF-8 text file, or one of: {', '.join(STYLE_WORD_LISTS)}",
        ) from error
    words = dict.fromkeys(line.strip() for line in lines if not line.lstrip().startswith("#"))
    words.pop("", None)
    if len(words) < 2:
        raise ConfigError(
            "fewer than two style words", where=name_or_path, hint="write one word a line"
        )
    return tuple(words)


WORDS_A_STYLE = 3  # In the label of a style
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
def nearest_words(teacher: Teacher, style_SW: Tensor) -> list[str]:
    """Label each style by the vocabulary words nearest to its vector, by cosine."""
    table_VW = teacher.token_embedding.weight
    listed = [(i, w) for i, w in vocabulary_words(teacher.tokenizer).items() if i < len(table_VW)]
    if len(listed) < WORDS_A_STYLE:
        return [f"style {index + 1}" for index in range(len(style_SW))]
    id_L = torch.tensor([i for i, _ in listed], device=table_VW.device)
    words_LW = F.normalize(table_VW[id_L], dim=1)
    nearest_SN = (F.normalize(style_SW, dim=1) @ words_LW.T).topk(WORDS_A_STYLE, dim=1).indices
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
