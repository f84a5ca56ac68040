"""Are the words of a class list words at all? Typos, and what was probably meant.

A word is known when the teacher's tokenizer holds it in one piece, when a drawing of the memory is
named with it, or when WordNet names a thing so.
Anything else that sounds like a name is asked about; so is what lies one slip of the finger from a
common name, unless it is made from a known word (`spacer`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from string import ascii_lowercase

from dfkd_edge.class_names import folded
from dfkd_edge.drawings import words as wordnet
from dfkd_edge.drawings.memory import distinct_names, read_sheets
from dfkd_edge.drawings.words import bases, singulars
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.prompts.vocabulary import vocabulary_words

MIN_LETTERS = 5
"""Shorter words sound like another by chance."""
MIN_LETTERS_OF_A_SLIP = 6
"""Shorter words have a neighbour one letter away by chance: crimp and crisp; swaps count still."""
MAX_SUGGESTIONS = 2
SPELLINGS = (
    *(("ph", "f"), ("ck", "k"), ("qu", "k"), ("rh", "r"), ("gh", "g"), ("wh", "w"), ("y", "i")),
    *(("ce", "se"), ("ci", "si"), ("c", "k"), ("z", "s")),
)
"""Letters that sound alike, in the order in which they are replaced (ours)."""


@dataclass(frozen=True, slots=True)
class KnownWords:
    """Words that are no typos, and those of them that name things."""

    usual: frozenset[str]
    """Names of drawings and words of the tokenizer: the teacher has seen these."""
    things: frozenset[str]
    """One-word names of things; suggestions are taken from here."""
    others: frozenset[str]
    """Further words of WordNet's names."""
    sounding: dict[str, tuple[str, ...]]
    """What a thing's name sounds like -> the names."""

    def corrections(self, name: str) -> list[str]:
        """Rewrite a name whose words are unknown by the nearest known ones; empty where none is."""
        rewritten = [name]
        for word in _words_of(name):
            near = [] if self._is_known(word) else self._near(word)
            if near:
                spots = re.compile(rf"\b{word}\b", re.IGNORECASE)
                texts = (spots.sub(found, text) for found in near for text in rewritten)
                rewritten = list(islice(texts, MAX_SUGGESTIONS))
        return [text for text in rewritten if text != name]

    def may_be_slip(self, name: str) -> bool:
        """Whether a word of a name is unknown and one slip from any name of a thing.

        Rare words are, too, such as `pierogi`: too little to ask, enough to suggest nothing.
        """
        unknown = (word for word in _words_of(name) if not self._is_known(word))
        return any(_slips(word) & self.things for word in unknown)

    def _is_known(self, word: str) -> bool:
        is_plain = len(word) >= MIN_LETTERS and word.isascii()
        return not is_plain or self._is_listed(singulars(word))

    def _is_listed(self, forms: Iterable[str]) -> bool:
        lists = (self.usual, self.things, self.others)
        return any(form in known for form in forms for known in lists)

    def _near(self, word: str) -> list[str]:
        """Words that sound the same, else common ones that are one slip away."""
        near = {w for form in singulars(word) for w in self.sounding.get(_sound(form), ())}
        if not near and not self._is_listed(base for w in singulars(word) for base in bases(w)):
            slips = _slips(word) if len(word) >= MIN_LETTERS_OF_A_SLIP else _swaps(word)
            near = {w for w in slips & self.things & self.usual if w[0] == word[0]}
        return sorted(near, key=lambda w: (w not in self.usual, w))[:MAX_SUGGESTIONS]


def known_words(teacher: Teacher) -> KnownWords:
    """Collect the words that a class list may be made of.

    Raises:
        ConfigError: the decoder's memory is incomplete.
    """
    lemmas = [lemma for names in wordnet.things() for lemma in names]
    drawn = _words(distinct_names(read_sheets()))
    things = frozenset(lemma for lemma in lemmas if re.fullmatch(r"[a-z]+", lemma)) | drawn
    sounding: dict[str, list[str]] = {}
    for thing in sorted(things):
        sounding.setdefault(_sound(thing), []).append(thing)
    return KnownWords(
        usual=drawn | frozenset(vocabulary_words(teacher.tokenizer).values()),
        things=things,
        others=_words(lemmas),
        sounding={sound: tuple(names) for sound, names in sounding.items()},
    )


def _words_of(name: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", folded(name))


def _words(names: Iterable[str]) -> frozenset[str]:
    return frozenset(word for name in names for word in re.findall(r"[a-z]+", folded(name)))


def _swaps(word: str) -> set[str]:
    """Every string that two neighbours in the wrong order may have meant."""
    return {word[:at] + word[at + 1] + word[at] + word[at + 2 :] for at in range(len(word) - 1)}


def _slips(word: str) -> set[str]:
    """Every string one letter dropped, added, replaced or swapped away (Damerau 1964)."""
    halves = [(word[:at], word[at:]) for at in range(len(word) + 1)]
    dropped = {a + b[1:] for a, b in halves if b}
    replaced = {a + letter + b[1:] for a, b in halves if b for letter in ascii_lowercase}
    added = {a + letter + b for a, b in halves for letter in ascii_lowercase}
    return dropped | _swaps(word) | replaced | added


def _sound(word: str) -> str:
    """Spell a word as it sounds, roughly: `elefant` and `elephant` are one."""
    for letters, heard in SPELLINGS:
        word = word.replace(letters, heard)
    return re.sub(r"(.)\1+", r"\1", word).rstrip("e")
