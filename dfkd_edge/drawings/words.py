"""WordNet's names of things: the 21,841 of ImageNet, which timm carries."""

from __future__ import annotations

import functools

from timm.data import ImageNetInfo

from dfkd_edge.class_names import folded


@functools.lru_cache
def things() -> tuple[tuple[str, ...], ...]:
    """Return the names of each thing, synonyms of each other."""
    wordnet = ImageNetInfo("imagenet-22k")
    return tuple(
        tuple(lemma.strip() for lemma in wordnet.index_to_description(number).split(","))
        for number in range(wordnet.num_classes())
    )


@functools.lru_cache
def _things_called() -> dict[str, list[int]]:
    called: dict[str, list[int]] = {}
    for number, lemmas in enumerate(things()):
        for lemma in lemmas:
            called.setdefault(folded(lemma), []).append(number)
    return called


def synonyms(name: str) -> frozenset[str]:
    """Return all folded names of whatever the name may stand for, itself not necessarily."""
    numbers = {
        number for form in singulars(folded(name)) for number in _things_called().get(form, [])
    }
    return frozenset(folded(lemma) for number in numbers for lemma in things()[number])


PLURALS = (
    *(("ies", "y"), ("ves", "f"), ("ives", "ife"), ("s", "")),
    *((f"{end}es", end) for end in ("s", "x", "z", "ch", "sh", "o")),
)
"""Endings and what stands for them in the singular; several may fit a word."""
MIN_LETTERS = 3
"""Shorter forms are no words but the rest of one: `bu` of bus, `to` of toes."""


def singulars(word: str) -> tuple[str, ...]:
    """Return a word in lower case and every word that it may be the plural of.

    A rule cannot know which is right: `leaves` gives leaf and leave, `boxes` box and boxe.
    """
    forms = (
        word.removesuffix(end) + new
        for end, new in PLURALS
        if word.endswith(end) and not (end == "s" and word.endswith("ss"))
    )
    return word, *(form for form in forms if len(form) >= MIN_LETTERS)
