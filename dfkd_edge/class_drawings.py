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

import torch
from torch import Tensor

from dfkd_edge.class_names import ClassNames, folded
from dfkd_edge.interfaces import Reporter
from dfkd_edge.synthesis.exemplars import (
    MIN_SIMILARITY,
    MIN_SIMILARITY_TO_PROMPT,
    distinct_names,
    embed_names,
    read_sheets,
)
from dfkd_edge.teacher import Teacher


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

    def named_like(self, name: str) -> NamedDrawings:
        """Look a class name up."""
        wanted = _stems(name)
        holding = self.names_of_word.get(wanted[0], ()) if wanted else ()
        found = [other for other in holding if _holds(_stems(other), wanted)]
        exact = [other for other in found if len(_stems(other)) == len(wanted)]
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
        for stem in dict.fromkeys(_stems(name)):
            by_word.setdefault(stem, []).append(name)
    return NameIndex(num_drawings, {stem: tuple(names) for stem, names in by_word.items()})


def _stems(name: str) -> tuple[str, ...]:
    """Words without case and without the s of a plural."""
    words = re.findall(r"\w+", folded(name))
    return tuple(w[:-1] if len(w) > 3 and w.endswith("s") and w[-2] != "s" else w for w in words)


def _holds(words: Sequence[str], wanted: Sequence[str]) -> bool:
    size = len(wanted)
    starts = range(len(words) - size + 1)
    return any(tuple(words[at : at + size]) == tuple(wanted) for at in starts)


def drawings_given_up(
    teacher: Teacher,
    prompts: Mapping[str, str],
    templates: Sequence[str],
    index: NameIndex,
    reporter: Reporter,
) -> dict[str, int]:
    """Count the drawings that each class would take by its name alone and not with its prompt.

    Args:
        teacher: whose text space decides.
        prompts: class name -> a prompt, of the list or suggested.
        templates: of the zero-shot head.
        index: names of the memory.
        reporter: shows the progress.
    """
    like = {name: index.named_like(name).names for name in prompts}
    listed = list(dict.fromkeys(name for names in like.values() for name in names))
    if not listed:
        return dict.fromkeys(prompts, 0)
    row = dict(zip(listed, embed_names(listed, teacher, reporter), strict=True))
    names = tuple(prompts)
    bare_KD = teacher.zero_shot_head(ClassNames(names, (None,) * len(names)), templates)
    own_KD = teacher.embed_texts(list(prompts.values()))
    return {
        name: sum(
            index.num_drawings[other] for other in like[name] if _is_lost(row[other], bare_D, own_D)
        )
        for name, bare_D, own_D in zip(names, bare_KD, own_KD, strict=True)
    }


def _is_lost(name_D: Tensor, bare_D: Tensor, own_D: Tensor) -> bool:
    """Whether a name of the memory serves a class by its name and not by its prompt."""
    bare, own = torch.stack([bare_D, own_D]) @ name_D
    return float(bare) >= MIN_SIMILARITY and float(own) < MIN_SIMILARITY_TO_PROMPT
