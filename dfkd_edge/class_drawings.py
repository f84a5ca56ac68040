"""What a prompt of its own costs a class in drawings of the memory.

The memory is searched as synthesis does it: half of a class's images start from what is found.

Shape suffixes: K classes, D embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from dfkd_edge.class_names import ClassNames
from dfkd_edge.synthesis.drawing_words import carries_name, is_kind_of
from dfkd_edge.synthesis.exemplars import DrawingMemory


@dataclass(frozen=True, slots=True)
class EmbeddedList:
    """A class list and where the teacher sees it."""

    classes: ClassNames
    head_KD: Tensor
    """The zero-shot head of the list with its own prompts."""
    templates: Sequence[str]


def given_up(
    memory: DrawingMemory, listed: EmbeddedList, prompts: Mapping[str, str]
) -> dict[str, int]:
    """Count the drawings that classes take by their names alone and not by their prompts.

    Only those of the class or its kind count: a prompt is there to lose drawings of something else.

    Args:
        memory: of the teacher whose text space decides.
        listed: the class list.
        prompts: class name -> a prompt, of the list or suggested; all are tried at once.
    """
    if not prompts:
        return {}
    teacher, names = memory.teacher, listed.classes.names
    rows = [names.index(name) for name in prompts]
    bare = ClassNames(tuple(prompts), (None,) * len(prompts))
    bare_KD, own_KD = listed.head_KD.clone(), listed.head_KD.clone()
    bare_KD[rows] = teacher.zero_shot_head(bare, listed.templates)
    own_KD[rows] = teacher.embed_texts(list(prompts.values()))
    by_name = memory.search(bare_KD, ClassNames(names, (None,) * len(names)))
    by_prompt = memory.search(own_KD, ClassNames(names, tuple(map(prompts.get, names))))
    lost = (memory.named({*by_name[row]} - {*by_prompt[row]}) for row in rows)
    return {
        name: sum(
            num
            for drawing, num in named.items()
            if carries_name(drawing, name) or is_kind_of(drawing, name)
        )
        for name, named in zip(prompts, lost, strict=True)
    }
