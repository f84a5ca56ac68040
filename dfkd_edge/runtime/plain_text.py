"""Text that others wrote, before it reaches a terminal: nothing in it may move, hide or colour."""

from __future__ import annotations

import unicodedata

JOINERS = "\u200c\u200d"  # Within words of Persian or Hindi, and within emoji
KEPT = "\n\t"


def hidden_character(text: str) -> str:
    """Return the first character that a reader cannot see, or that reorders others; else empty.

    Control characters, halves of a surrogate pair, separators of lines, and format characters such
    as U+202E, which shows what follows backwards.
    """
    return next((c for c in text if not c.isprintable() and _is_hidden(c)), "")


def _is_hidden(character: str) -> bool:
    kinds = ("Cc", "Cf", "Cs", "Zl", "Zp")  # not Cn: an old Python knows fewer characters
    return character not in JOINERS and unicodedata.category(character) in kinds


def printable(text: str) -> str:
    """Write hidden characters as JSON does, such as `\\u202e`; lines and tabs stay."""
    if text.isprintable():  # nearly all of it
        return text
    return "".join(_escaped(c) if c not in KEPT and _is_hidden(c) else c for c in text)


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i] << 8 | units[i + 1]:04x}" for i in range(0, len(units), 2))


def code_point(character: str) -> str:
    """Name a character that cannot be shown: `U+202E`."""
    return f"U+{ord(character):04X}"
