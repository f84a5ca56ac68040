"""WordNet's names of things: the 21,841 of ImageNet, which timm carries."""

from __future__ import annotations

import functools

from timm.data import ImageNetInfo

from dfkd_edge.class_names import folded
from dfkd_edge.word_forms import singulars


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
