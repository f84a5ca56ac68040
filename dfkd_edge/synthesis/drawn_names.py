"""Finds out what the drawings of each class are named: after it, or after something near it.

The memory is searched by meaning, as the small teacher sees it: it holds no wheelbarrow, and what
comes nearest to one is named "wheel". Nothing else in a run would tell.
"""

from __future__ import annotations

import re

from torch import Tensor

from dfkd_edge.class_names import ClassNames, folded
from dfkd_edge.drawn_class import DrawnClass
from dfkd_edge.synthesis.exemplars import DrawingMemory
from dfkd_edge.word_forms import singulars
from dfkd_edge.wordnet import synonyms


def drawn_classes(memory: DrawingMemory, classes: ClassNames, head_KD: Tensor) -> list[DrawnClass]:
    """Search the memory as synthesis does, and name what is found for each class.

    Args:
        memory: of the embedded teacher.
        classes: the list.
        head_KD: where the teacher sees it.
    """
    found = memory.search(head_KD, [bool(prompt) for prompt in classes.prompts])
    drawn = []
    for name, prompt, places in zip(classes.names, classes.prompts, found, strict=True):
        named = memory.named(places)
        own = {other for other in named if carries_name(other, name, prompt or "")}
        kind = {other for other in named if is_kind_of(other, name)} - own
        counts = (sum(named[other] for other in others) for others in (own, kind))
        drawn.append(DrawnClass(name, named, *counts))
    return drawn


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

    "guide dog" carries dog, "couch" sofa; "wheel" does not carry wheelbarrow. Commas part the
    synonyms of ImageNet's names.
    """
    drawn = _forms(drawing)
    parts = [part for part in name.split(",") if part.strip()]
    return (
        any(_holds(drawn, _forms(part)) for part in parts)
        or any(_joined(drawing) & _joined(part) for part in parts)
        or any(synonyms(part) & set(singulars(folded(drawing))) for part in parts)
        or _holds(_forms(prompt), drawn)
    )


def _forms(text: str) -> list[set[str]]:
    return [set(singulars(word)) for word in re.findall(r"\w+", folded(text))]


def _joined(text: str) -> set[str]:
    return set(singulars("".join(re.findall(r"\w+", folded(text)))))


def _holds(whole: list[set[str]], part: list[set[str]]) -> bool:
    return bool(part) and all(any(forms & other for other in whole) for forms in part)
