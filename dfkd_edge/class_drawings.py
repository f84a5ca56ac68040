"""How many drawings of the memory are named like a class, and what a prompt of its own costs.

The embedded decoder starts half of a class's images from drawings whose names lie near the class in
the teacher's text space. Embedding all of the memory's names takes longer than a look at a class
list may, so only names that hold the class's own words are counted, and embedded only where a
prompt is at stake. Drawings of other names (`automobile` for `car`) may join them.

Shape suffixes: K classes, V names, D embedding width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from dfkd_edge.class_names import ClassNames, folded
from dfkd_edge.interfaces import Reporter
from dfkd_edge.synthesis.exemplars import (
    MAX_DRAWINGS,
    distinct_names,
    embed_names,
    near_names,
    read_sheets,
)
from dfkd_edge.teacher import Teacher
from dfkd_edge.word_forms import singulars


@dataclass(frozen=True, slots=True)
class NamedDrawings:
    """The drawings that are named like a class."""

    num_exact: int
    """Of the very name, in the singular or the plural."""
    num_longer: int
    """Of names that hold it: `horse head` for horse, but `hot dog` for dog too."""
    names: tuple[str, ...]
    """All these names."""

    def __str__(self) -> str:
        """Say both counts."""
        longer = f" (+{self.num_longer} in longer names)" if self.num_longer else ""
        return f"{self.num_exact}{longer}"


@dataclass(frozen=True, slots=True)
class NameIndex:
    """Names of the memory by their words."""

    num_drawings: Mapping[str, int]
    names_of_word: Mapping[str, tuple[str, ...]]
    """Every form of a word -> the names that hold it."""

    def named_like(self, name: str) -> NamedDrawings:
        """Look a class name up."""
        wanted = _forms(name)
        firsts = wanted[0] if wanted else ()
        holding = dict.fromkeys(n for form in firsts for n in self.names_of_word.get(form, ()))
        found = [other for other in holding if _holds(_forms(other), wanted)]
        exact = [other for other in found if len(_forms(other)) == len(wanted)]
        total = sum(self.num_drawings[other] for other in found)
        num_exact = sum(self.num_drawings[other] for other in exact)
        return NamedDrawings(num_exact, total - num_exact, tuple(found))


def read_name_index() -> NameIndex:
    """Read the names of the memory.

    Raises:
        ConfigError: a part of the memory is missing.
    """
    num_drawings = {name: len(places) for name, places in distinct_names(read_sheets()).items()}
    by_word: dict[str, list[str]] = {}
    for name in num_drawings:
        for form in dict.fromkeys(form for forms in _forms(name) for form in forms):
            by_word.setdefault(form, []).append(name)
    return NameIndex(num_drawings, {form: tuple(names) for form, names in by_word.items()})


def _forms(name: str) -> list[tuple[str, ...]]:
    """Return for each word of a name what it may be the plural of, itself included."""
    return [singulars(word) for word in re.findall(r"\w+", folded(name))]


def _holds(words: Sequence[tuple[str, ...]], wanted: Sequence[tuple[str, ...]]) -> bool:
    """Whether the wanted words stand in a row, in the singular or the plural."""
    return any(
        all(set(one) & set(two) for one, two in zip(words[at:], wanted, strict=False))
        for at in range(len(words) - len(wanted) + 1)
    )


@dataclass(frozen=True, slots=True)
class EmbeddedList:
    """A class list and where the teacher sees it."""

    classes: ClassNames
    head_KD: Tensor
    """The zero-shot head of the list with its own prompts."""
    templates: Sequence[str]


def most_given_up(
    teacher: Teacher,
    listed: EmbeddedList,
    prompts: Mapping[str, str],
    index: NameIndex,
    reporter: Reporter,
) -> dict[str, int]:
    """Count the drawings named like a class that it may take by its name and not by its prompt.

    The search of the memory decides which names serve a class, here with all prompts and without
    any. A class takes no more drawings than it has room for, and none in which the teacher does not
    see it; so the counts are the most that can be lost.

    Args:
        teacher: whose text space decides.
        listed: the class list.
        prompts: class name -> a prompt, of the list or suggested.
        index: names of the memory.
        reporter: shows the progress.
    """
    like = {name: index.named_like(name).names for name in prompts}
    names = list(dict.fromkeys(other for others in like.values() for other in others))
    if not names:
        return dict.fromkeys(prompts, 0)
    name_VD = embed_names(names, teacher, reporter)
    row_of = {name: row for row, name in enumerate(listed.classes.names)}
    rows = [row_of[name] for name in prompts]
    bare = ClassNames(tuple(prompts), (None,) * len(prompts))
    bare_KD, own_KD = listed.head_KD.clone(), listed.head_KD.clone()
    bare_KD[rows] = teacher.zero_shot_head(bare, listed.templates)
    own_KD[rows] = teacher.embed_texts(list(prompts.values()))
    has_prompt = [name in prompts for name in listed.classes.names]
    by_name = near_names(name_VD, bare_KD, [False] * len(row_of))
    by_prompt = near_names(name_VD, own_KD, has_prompt)
    given_up = {}
    for name, row in zip(prompts, rows, strict=True):
        lost = {names[number] for number in {*by_name[row]} - {*by_prompt[row]}}
        total = sum(index.num_drawings[other] for other in lost.intersection(like[name]))
        given_up[name] = min(total, MAX_DRAWINGS)
    return given_up
