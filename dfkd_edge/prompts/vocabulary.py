"""Words: the lists that Mix-Prompt mixes, and the token table read as words.

Shape suffixes: V vocabulary, L listed words, W token-embedding width.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
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
