"""Names that mean several things: how the teacher reads one, and which sense its list suggests.

Shape suffixes: S senses, D embedding width.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files

import torch.nn.functional as F
from torch import Tensor

from dfkd_edge.class_lint.scale import Scale
from dfkd_edge.networks.teacher import Teacher

CLEAR_MARGIN = 0.18
"""A list suggests the sense that is nearest to its other classes, when the second lies farther by
this share of the way from synonyms to unrelated words (ours)."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What becomes of a word of several senses."""

    senses: tuple[str, ...]
    read: str
    """The sense that the teacher sees in the word."""
    meant: str
    """The sense that the other classes suggest; empty where they do not tell."""

    @property
    def is_misread(self) -> bool:
        """Whether the list clearly means another sense."""
        return self.meant not in ("", self.read)

    def sentence(self, name: str) -> str:
        """Say it in one line, with the prompt to give where the list does not tell."""
        lists = "agrees" if self.meant == self.read else f"suggests {self.meant}"
        if not self.meant:
            other = next(sense for sense in self.senses if sense != self.read)
            prompt = sense_prompt(name, other)
            lists = f'does not tell which: if you mean another, give a prompt, such as "{prompt}"'
        return f"may be {' or '.join(self.senses)}; the teacher reads {self.read}, the list {lists}"


def sense_prompt(name: str, sense: str) -> str:
    """Write the prompt of a name in one of its senses."""
    return f"a photo of {with_article(name)}, {sense}"


def with_article(name: str) -> str:
    """Put "a" or "an" before a name."""
    return f"{'an' if name[:1].casefold() in 'aeiou' else 'a'} {name}"


def read_senses() -> dict[str, list[str]]:
    """Read the words of several senses, by their folded form."""
    text = files("dfkd_edge.assets").joinpath("words/senses.json").read_text(encoding="utf-8")
    senses: dict[str, list[str]] = json.loads(text)
    return senses


def read_word(
    teacher: Teacher, senses: list[str], own_D: Tensor, others_D: Tensor, scale: Scale
) -> Reading:
    """Compare the senses of a word with its class and with the rest of its list.

    Args:
        teacher: whose text space decides.
        senses: short descriptions.
        own_D: the class.
        others_D: sum of the other classes.
        scale: of the teacher.
    """
    sense_SD = teacher.embed_texts([f"a photo of {sense}" for sense in senses])
    first, second = (sense_SD @ F.normalize(others_D, dim=0)).topk(2)[0].tolist()
    is_clear = first - second >= CLEAR_MARGIN * (scale.synonyms - scale.unrelated)
    read = senses[int((sense_SD @ own_D).argmax())]
    meant = senses[int((sense_SD @ others_D).argmax())] if is_clear else ""
    return Reading(tuple(senses), read, meant)
