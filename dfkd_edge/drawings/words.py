"""WordNet's names of things, from the 21,841 classes of ImageNet that timm ships; singulars."""

import functools

from dfkd_edge.class_names import folded

PLURALS = (
    *(("ies", "y"), ("ves", "f"), ("ives", "ife"), ("s", "")),
    *((f"{end}es", end) for end in ("s", "x", "z", "ch", "sh", "o")),
)
"""Endings and what stands for them in the singular; several may fit a word."""
MIN_LETTERS = 3  # Shorter forms are no words but the rest of one: `bu` of bus, `to` of toes


@functools.lru_cache
def things() -> tuple[tuple[str, ...], ...]:
    """Return the names of each thing, which are synonyms of each other."""
    from timm.data import ImageNetInfo  # timm loads torch, which plain readers do not need

    wordnet = ImageNetInfo("imagenet-22k")
    return tuple(
        tuple(lemma.strip() for lemma in wordnet.index_to_description(number).split(","))
        for number in range(wordnet.num_classes())
    )


@functools.lru_cache
def _things_called() -> dict[str, list[tuple[str, ...]]]:
    called: dict[str, list[tuple[str, ...]]] = {}
    for lemmas in things():
        for lemma in lemmas:
            called.setdefault(folded(lemma), []).append(lemmas)
    return called


def synonyms(name: str) -> frozenset[str]:
    """Return the folded names of everything that a name, singular or plural, may stand for."""
    found = (_things_called().get(form, []) for form in singulars(folded(name)))
    return frozenset(folded(lemma) for things in found for lemmas in things for lemma in lemmas)


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
