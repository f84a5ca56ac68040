"""Finds out what the drawings of each class are named: after it, or after something near it.

The memory is searched by meaning, as the small teacher sees it: it holds no wheelbarrow, and what
comes nearest to one is named "wheel". Nothing else in a run would tell.
"""

from __future__ import annotations

from torch import Tensor

from dfkd_edge.class_names import ClassNames
from dfkd_edge.drawn_class import DrawnClass
from dfkd_edge.synthesis.drawing_words import carries_name, is_kind_of
from dfkd_edge.synthesis.exemplars import DrawingMemory


def drawn_classes(memory: DrawingMemory, classes: ClassNames, head_KD: Tensor) -> list[DrawnClass]:
    """Search the memory as synthesis does, and name what is found for each class.

    Args:
        memory: of the embedded teacher.
        classes: the list.
        head_KD: where the teacher sees it.
    """
    found = memory.search(head_KD, classes)
    drawn = []
    for name, prompt, places in zip(classes.names, classes.prompts, found, strict=True):
        named = memory.named(places)
        own = {other for other in named if carries_name(other, name, prompt or "")}
        kind = {other for other in named if is_kind_of(other, name)} - own
        counts = (sum(named[other] for other in others) for others in (own, kind))
        drawn.append(DrawnClass(name, named, *counts))
    return drawn
