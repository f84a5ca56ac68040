"""Slips in a class list: lines that may not be what was meant, and typos.

A typo is a word that no list holds, near a known one that was probably meant. A line that can only
be wrong is refused when the list is read (`class_names.py`).
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from dfkd_edge.class_lint.findings import Finding
from dfkd_edge.class_names import ONE_TAB, WIDE_GAP, folded, names_on_a_line
from dfkd_edge.drawings import names as wordnet
from dfkd_edge.drawings.memory import distinct_names, read_sheets
from dfkd_edge.drawings.names import singulars
from dfkd_edge.interfaces import Reporter
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.prompts.vocabulary import vocabulary_words

PROMPT = re.compile(r"\ban? (photo|picture|image|drawing|painting|sketch) of\b", re.IGNORECASE)
IN_OURS = "in a list of ours, which `classes lint FILE --output LIST` writes: after a tab"
"""Where a prompt goes that the form of another tool has no place for."""
MAX_NOTED = 3
MIN_LETTERS = 5  # Shorter words sound like another by chance
MIN_LETTERS_OF_A_SLIP = 6
"""Shorter words have a neighbour one letter away by chance: crimp and crisp. Swaps count still."""
MAX_SUGGESTIONS = 2
MADE_FROM = ("er", "or", "ing", "ed")
"""Endings that make a thing or a state out of a verb: spacer, contactor, peeling, pitted."""


def find_slips(names: Sequence[str], holds_prompts: bool = True) -> Iterator[Finding]:
    """Find names that hold a prompt, several spaces or several names.

    Args:
        names: of the list.
        holds_prompts: whether it has our form, with prompts behind tabs.
    """
    mend = ONE_TAB if holds_prompts else f"give it {IN_OURS}"
    for name in names:
        parts, prompt = names_on_a_line(name), PROMPT.search(name)
        if prompt:
            before, text = name[: prompt.start()].rstrip(), f"is this a prompt? {mend}"
            # nothing to suggest where the rest is no name, or that of another class
            is_plain = bool(before) and before not in names
            line = (before, name[prompt.start() :]) if is_plain else None
            yield Finding("prompt-in-name", (name,), text, better_line=line)
        elif WIDE_GAP.search(name):
            text = f"{ONE_TAB}, or one" if holds_prompts else "write one"
            yield Finding("wide-gap", (name,), f"several spaces in a name: {text}")
        elif len(parts) > 1:
            text = f"one class, not {len(parts)}: write one name a line, unless these are synonyms"
            # fine: ImageNet's class names are synonyms with commas between them
            yield Finding("many-in-one", (name,), text, is_fine=True)


def note_slips(names: Sequence[str], reporter: Reporter, holds_prompts: bool = True) -> None:
    """Note them in one line before anything is trained, where there are some."""
    found = list(find_slips(names, holds_prompts))
    if found:
        listed = "; ".join(f"'{slip.names[0]}': {slip.text}" for slip in found[:MAX_NOTED])
        more = f"; and {len(found) - MAX_NOTED} more" if len(found) > MAX_NOTED else ""
        reporter.note(f"  look at the class list: {listed}{more}")


@dataclass(frozen=True)  # no slots: cached_property writes into __dict__
class KnownWords:
    """Words that are no typos, and those of them that name things."""

    usual: frozenset[str]
    """Names of drawings and words that the tokenizer holds whole: the teacher has seen these."""
    things: frozenset[str]  # Names of things in one word; suggestions are taken from here
    listed: frozenset[str]  # All of these, and the words of WordNet's longer names

    def corrections(self, name: str) -> list[str]:
        """Rewrite a name with the known words nearest to its unknown ones; empty without any."""
        rewritten = [name]
        for word in re.findall(r"[^\W\d_]+", folded(name)):
            near = self._near(word)
            if near:
                spots = re.compile(rf"\b{word}\b", re.IGNORECASE)  # folded, unlike the name
                texts = [spots.sub(found, text) for found in near for text in rewritten]
                rewritten = texts[:MAX_SUGGESTIONS]  # n words of two readings have 2^n rewritings
        return [text for text in rewritten if text != name]

    @cached_property
    def _by_sound(self) -> dict[str, list[str]]:
        heard: dict[str, list[str]] = {}
        for thing in self.things:
            heard.setdefault(_sound(thing), []).append(thing)
        return heard

    def _near(self, word: str) -> list[str]:
        """Find things that sound like an unknown word, else usual ones that are one slip away.

        A rare word, such as `pierogi`, lies one slip from another rare one: no reason to ask.
        """
        forms = singulars(word)
        if len(word) < MIN_LETTERS or not word.isascii() or self.listed.intersection(forms):
            return []
        near = {thing for form in forms for thing in self._by_sound.get(_sound(form), ())}
        if not near and not self.listed.intersection(s for form in forms for s in _stems(form)):
            near = {
                other
                for other in self.things & self.usual
                if other[0] == word[0] and _is_one_slip(word, other)
                if len(word) >= MIN_LETTERS_OF_A_SLIP or sorted(word) == sorted(other)
            }
        return sorted(near, key=lambda thing: (thing not in self.usual, thing))[:MAX_SUGGESTIONS]


def known_words(teacher: Teacher) -> KnownWords:
    """Collect the words that a class list may be made of.

    Raises:
        ConfigError: the decoder's memory is incomplete.
    """
    lemmas = [lemma for names in wordnet.things() for lemma in names]
    drawn = _words(distinct_names(read_sheets()))
    usual = drawn | frozenset(vocabulary_words(teacher.tokenizer).values())
    things = frozenset(lemma for lemma in lemmas if re.fullmatch(r"[a-z]+", lemma)) | drawn
    return KnownWords(usual, things, usual | things | _words(lemmas))


def _words(names: Iterable[str]) -> frozenset[str]:
    # folded as one text: forty thousand calls take half a second
    return frozenset(re.findall(r"[a-z]+", folded(" ".join(names))))


def _stems(word: str) -> list[str]:
    """What a word may be made from: `space` of spacer, `pit` of pitted; no typo of another word."""
    stems = [word.removesuffix(end) for end in MADE_FROM if word.endswith(end)]
    forms = [form for stem in stems for form in (stem, f"{stem}e", re.sub(r"(.)\1$", r"\1", stem))]
    return [form for form in forms if len(form) >= wordnet.MIN_LETTERS]


def _is_one_slip(word: str, other: str) -> bool:
    """Whether one letter was dropped, added or replaced, or two were swapped (Damerau 1964)."""
    differs = [one != two for one, two in zip(word, other, strict=False)]
    start = differs.index(True) if True in differs else len(differs)
    a, b = word[start:], other[start:]
    is_swap = a[:2] == b[1::-1] and a[2:] == b[2:]  # b[1::-1]: its first two letters, swapped
    return is_swap or a[1:] == b[1:] or a[1:] == b or a == b[1:]


def _sound(word: str) -> str:
    """Spell a word as it sounds, roughly: `elefant` as elephant, `girafe` as giraffe."""
    heard = word.replace("ph", "f").replace("c", "k").replace("y", "i")
    return re.sub(r"(.)\1+", r"\1", heard).rstrip("e")
