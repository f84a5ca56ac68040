"""Endings of English words, undone by rule: what a word may be the plural of, or made from."""

from __future__ import annotations

PLURALS = (
    *(("ies", "y"), ("ves", "f"), ("ives", "ife"), ("s", "")),
    *((f"{end}es", end) for end in ("s", "x", "z", "ch", "sh", "o")),
)
"""Endings and what stands for them in the singular; several may fit a word."""
MADE_FROM = ("er", "or", "ing", "ed")
"""Endings that make a thing or a state out of a verb: spacer, contactor, peeling, pitted."""
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


def bases(word: str) -> tuple[str, ...]:
    """Return what a word in lower case may be made from: `space` of spacer, `pit` of pitted."""
    stems = [word.removesuffix(end) for end in MADE_FROM if word.endswith(end)]
    halved = [stem[:-1] for stem in stems if stem[-2:-1] == stem[-1:]]
    forms = (*stems, *halved, *(f"{stem}e" for stem in stems))
    return tuple(form for form in forms if len(form) >= MIN_LETTERS)
