"""Whether a drawing's name fits a class: by the class's name, its kind, or a qualifier alone.

English compounds end in what the thing is: a traffic cone is a cone. Commas part the synonyms of
ImageNet's class names. Words are compared in the singular. Synonyms are WordNet's names of things,
from the 21,841 classes of ImageNet that timm ships.
"""

import functools
import re

from dfkd_edge.class_names import folded

PLURALS = (
    *(("ies", "y"), ("ves", "f"), ("ives", "ife"), ("s", "")),
    *((f"{end}es", end) for end in ("s", "x", "z", "ch", "sh", "o")),
)
"""Endings and what stands for them in the singular; several may fit a word."""
FEW = 1  # A class with at most so many drawings of its name has next to none (ours)
MIN_LETTERS = 3  # Shorter forms are no words but the rest of one: `bu` of bus, `to` of toes


def is_kind_of(drawing: str, name: str) -> bool:
    """Whether a drawing's name is how a class's name ends: "elephant" of "African elephant".

    It shows the class less closely, and rarely something else ("bank" of "piggy bank").
    """
    drawn, ends = _forms(drawing), [_forms(part) for part in name.split(",")]
    return bool(drawn) and any(
        len(drawn) < len(end) and all(a & b for a, b in zip(drawn, end[-len(drawn) :], strict=True))
        for end in ends
    )


def carries_name(drawing: str, name: str, prompt: str = "") -> bool:
    """Whether a drawing's name holds a class's name, is a synonym, or stands in its prompt.

    "guide dog" carries dog, "couch" sofa; "wheel" does not carry wheelbarrow.
    """
    drawn = _forms(drawing)
    parts = [part for part in name.split(",") if part.strip()]
    return (
        any(_holds(drawn, _forms(part)) for part in parts)
        or any(_joined(drawing) & _joined(part) for part in parts)
        or any(synonyms(part) & set(singulars(folded(drawing))) for part in parts)
        or _holds(_forms(prompt), drawn)
    )


def is_of_qualifier(drawing: str, name: str) -> bool:
    """Whether a drawing shares words with a class's name, and not what the class is.

    "horizontal traffic" of "traffic cone", "fire" of "fire extinguisher"; never a synonym.
    """
    drawn, parts = _forms(drawing), [words for words in map(_forms, name.split(",")) if words]
    is_shared = any(_is_in(word, drawn) for words in parts for word in words[:-1])
    is_head = any(_is_in(words[-1], drawn) for words in parts)
    return is_shared and not is_head and not carries_name(drawing, name)


def _forms(text: str) -> list[set[str]]:
    """Return for each word what it may be the plural of, itself included."""
    return [set(singulars(word)) for word in re.findall(r"\w+", folded(text))]


def _joined(text: str) -> set[str]:
    """Write a name without spaces and dashes: `tooth brush` is a toothbrush."""
    return set(singulars("".join(re.findall(r"\w+", folded(text)))))


def _is_in(forms: set[str], words: list[set[str]]) -> bool:
    return any(forms & other for other in words)


def _holds(whole: list[set[str]], part: list[set[str]]) -> bool:
    return bool(part) and all(_is_in(forms, whole) for forms in part)


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
        if word.endswith(end) and not (end == "s" and word.endswith("ss"))  # glass is no plural
    )
    return word, *(form for form in forms if len(form) >= MIN_LETTERS)
