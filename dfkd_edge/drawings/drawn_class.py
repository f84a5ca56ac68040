"""Which drawings the images of a class start from, judged by the drawings' names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dfkd_edge.artifacts import ClassCount
from dfkd_edge.class_names import ClassNames, folded
from dfkd_edge.drawings.names import FEW, carries_name, is_kind_of
from dfkd_edge.runtime.counting import MAX_LISTED, first_few

if TYPE_CHECKING:
    from torch import Tensor

    from dfkd_edge.drawings.memory import DrawingMemory

MAX_NAMES = 3  # Names of drawings that are listed for a class, and such classes, in a line


@dataclass(frozen=True, slots=True)
class DrawnClass:
    """A class and the drawings that its images may start from."""

    name: str
    named: Mapping[str, int]  # Name in the memory -> drawings of that name, nearest names first
    num_own: int  # Drawings that carry the name of the class, a synonym, or what its prompt says
    num_of_kind: int = 0  # Others whose name is that of its kind: "elephant" for "African elephant"
    num_alike: int = 0  # Others that only look like it to the teacher, whatever their names

    @property
    def num_drawings(self) -> int:
        """All its drawings."""
        return sum(self.named.values())

    @property
    def is_of_others(self) -> bool:
        """Whether most that its name has found, and all but one, are named after something else."""
        num_named = self.num_drawings - self.num_alike
        return self.num_fitting <= FEW and 2 * self.num_fitting < num_named

    @property
    def num_fitting(self) -> int:
        """Drawings of it or of its kind."""
        return self.num_own + self.num_of_kind

    def names(self) -> str:
        """Name its drawings, the most frequent first, in a few words."""
        frequent = sorted(self.named, key=lambda name: -self.named[name])
        return first_few(frequent, MAX_NAMES)

    def short(self) -> str:
        """Count its drawings, and name them where they are not named as the class is."""
        names = f" ({self.names()})" if set(self.named) - {folded(self.name)} else ""
        return f"{self.name} {self.num_drawings}{names}"

    def to_json(self) -> dict[str, Any]:
        """Return what the summary of surrogates keeps of it."""
        return {
            "drawings": self.named,
            "num_of_its_name": self.num_own,
            "num_of_its_kind": self.num_of_kind,
            "num_alike": self.num_alike,
        }


def read_drawn_class(entry: ClassCount) -> DrawnClass:
    """Read a class's entry in a summary, which has no drawings where the teacher uses none."""
    counts = entry.num_of_its_name, entry.num_of_its_kind, entry.num_alike
    return DrawnClass(entry.name, entry.drawings or {}, *counts)


def drawings_text(drawn: Sequence[DrawnClass]) -> str:
    """Say what the memory holds: each class of a short list, the bare ones of a long one."""
    if len(drawn) <= MAX_LISTED:
        return ", ".join(each.short() for each in drawn)
    bare = [each.name for each in drawn if not each.named]
    alike = [each.short() for each in drawn if each.num_alike]
    others = [each.short() for each in drawn if each.is_of_others]
    text = f"{len(drawn) - len(bare)} of {len(drawn)} classes"
    text += f"; none for {first_few(bare)}" if bare else ""
    text += f"; of another name for {first_few(others)}" if others else ""
    return text + (f"; what looks alike for {first_few(alike)}" if alike else "")


def drawings_note(drawn: Sequence[DrawnClass]) -> str:
    """Warn in one line of classes that the memory misses or mistakes; empty without any."""
    others = [f"{each.name} ({each.names()})" for each in drawn if each.is_of_others]
    few = [each for each in drawn if each.num_fitting <= FEW and not each.is_of_others]
    instead = [f"{each.name} ({each.names()})" for each in few if each.num_alike]
    none = [each.name for each in few if not each.num_alike]
    text = f"drawings of another name: {first_few(others)}; " if others else ""
    text += f"no drawing or only one of: {first_few(none)}; " if none else ""
    shown = first_few(instead, MAX_NAMES)
    text += f"what looks alike, for want of drawings: {shown}; " if instead else ""
    return text and f"{text}dfkd-edge classes lint says more"


def drawn_classes(memory: DrawingMemory, classes: ClassNames, head_KD: Tensor) -> list[DrawnClass]:
    """Search the memory as synthesis does, and name what is found for each class."""
    found = memory.search(head_KD, classes)
    drawn = []
    for name, prompt, each in zip(classes.names, classes.prompts, found, strict=True):
        named = memory.named(each.named)  # in the order of the search, nearest first
        own = {other for other in named if carries_name(other, name, prompt or "")}
        kind = {other for other in named if is_kind_of(other, name)} - own  # own counts first
        num_own, num_of_kind = (sum(named[other] for other in others) for others in (own, kind))
        all_named = memory.named(each.places) if each.alike else named
        drawn.append(DrawnClass(name, all_named, num_own, num_of_kind, len(each.alike)))
    return drawn
