"""Slips of the hand in a class list: spaces in place of a tab, several names on one line.

A line that can only be a slip stops the list (`class_names.py`); one that may be meant is told of.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dfkd_edge.class_names import ONE_TAB, WIDE_GAP, names_on_a_line

if TYPE_CHECKING:
    from dfkd_edge.interfaces import Reporter


PROMPT = re.compile(r"\ban? (photo|picture|image|drawing|painting|sketch) of\b", re.IGNORECASE)
ARTICLES = frozenset({"a", "an"})
RELATIVES = frozenset({"that", "which", "who", "whose"})
BEFORE_ARTICLES = frozenset(
    {
        *("about", "above", "across", "after", "against", "along", "among", "around", "as", "at"),
        *("before", "behind", "below", "beneath", "beside", "between", "by", "down", "during"),
        *("for", "from", "in", "inside", "into", "like", "near", "of", "off", "on", "onto", "out"),
        *("outside", "over", "past", "per", "round", "than", "through", "to", "toward", "towards"),
        *("under", "up", "upon", "with", "within", "without"),
        *("and", "but", "half", "many", "nor", "not", "or", "quite", "rather", "such", "what"),
    }
)
"""Words that an article follows inside of a name, as in `cup of a tea service`."""
MIN_PHRASE_WORDS = 2
"""A phrase after its article; fewer may end a name, as in `hepatitis a`."""
MAX_TOLD = 3


@dataclass(frozen=True, slots=True)
class Slip:
    """A name that may not be what its writer meant."""

    rule: str
    """`wide-gap`, `prompt-in-name` or `many-in-one`."""
    name: str
    text: str
    """What is the matter and what to do, after the name."""
    mended: tuple[str, str] | None = None
    """Name and prompt, where it is plain which was meant."""
    is_fine: bool = False
    """Whether it is as likely meant: ImageNet's names hold synonyms, and
    `grade a milk carton` an article."""


def _holds_phrase(name: str) -> bool:
    """Whether a phrase stands right after a noun, as in `crane a machine that lifts loads`.

    "the" may follow a noun, as in `Winnie the Pooh bear`, and "a la" may: neither is enough alone.
    """
    words = name.split()
    for before, article, *after in (words[i:] for i in range(len(words) - MIN_PHRASE_WORDS - 1)):
        if before.lower() in BEFORE_ARTICLES or before.lower().endswith("ing"):
            continue
        if article in ARTICLES and after[0].lower() != "la":
            return True
        if article == "the" and RELATIVES & set(after):
            return True
    return False


def _parted(name: str, start: int, names: Sequence[str]) -> tuple[str, str] | None:
    """Part a name before its prompt; None where that leaves no name, or that of another class."""
    before = name[:start].rstrip()
    return (before, name[start:]) if before and before not in names else None


def find_slips(names: Sequence[str]) -> list[Slip]:
    """Look at the names of a list that could be read."""
    found = []
    for name in names:
        parts = names_on_a_line(name)
        prompt = PROMPT.search(name)
        if prompt or (len(parts) == 1 and _holds_phrase(name)):
            text = f"is this a prompt? {ONE_TAB}"
            mended = _parted(name, prompt.start(), names) if prompt else None
            found.append(Slip("prompt-in-name", name, text, mended, is_fine=not prompt))
        elif WIDE_GAP.search(name):
            found.append(Slip("wide-gap", name, f"several spaces in a name: {ONE_TAB}, or one"))
        elif len(parts) > 1:
            what = f"one class, not {len(parts)}: write one name a line, unless these are synonyms"
            found.append(Slip("many-in-one", name, what, is_fine=True))
    return found


def note_slips(names: Sequence[str], reporter: Reporter) -> None:
    """Tell of them in one line before anything is trained, where there are some."""
    found = find_slips(names)
    if found:
        told = "; ".join(f"'{slip.name}': {slip.text}" for slip in found[:MAX_TOLD])
        more = f"; and {len(found) - MAX_TOLD} more" if len(found) > MAX_TOLD else ""
        reporter.note(f"  look at the class list: {told}{more}")
