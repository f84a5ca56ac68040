"""Plurals of English nouns, undone by rule: every form that a word may be the plural of."""

from __future__ import annotations

PLURALS = (
    *(("ies", "y"), ("ves", "f"), ("ives", "ife"), ("s", "")),
    *((f"{end}es", end) for end in ("s", "x", "z", "ch", "sh", "o")),
)
"""Endings and what stands for them in the singular; several may fit a word."""
MIN_LETTERS = 3
"""Shorter singulars are no nouns but the rest of a word: `bu` of bus, `to` of toes."""


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
