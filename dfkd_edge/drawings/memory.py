"""The named drawings in the embedded decoder's memory, and which of them show a class.

A drawing serves a class when its name lies near the class in the teacher's text space and the
teacher sees the class in it, among the other classes of the list and among all names of the memory.
A class that has next to none of those takes drawings in which the teacher sees it rather than any
other class of the list, whatever they are named: a hippopotamus for rhinoceros. Its student learns
from what the teacher says of each, which is not that it is the class.

Shape suffixes: M drawings, V distinct names, K classes, D embedding width, P side of a drawing in
pixels, C = 4 channels (RGBA).
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from dfkd_edge import assets
from dfkd_edge.artifacts import load_tensors
from dfkd_edge.class_names import ClassNames
from dfkd_edge.config.settings import MINI
from dfkd_edge.drawings.names import FEW, is_of_qualifier
from dfkd_edge.errors import ArtifactError, ConfigError
from dfkd_edge.networks.teacher import Teacher

EMBEDDINGS = "embeddings.safetensors"  # Of names and drawings, beside the sheets
NAME_TEXT = "a drawing of a {}"
"""What the teacher reads of a drawing's name; a class is what the zero-shot head holds of it."""
MIN_SIMILARITY = 0.7
"""Cosine of names that may stand for a class: "horse head" for horse, not "dog" for a breed."""
MIN_SIMILARITY_TO_PROMPT = 0.95
"""The same where a class has a prompt of its own, which tells that its name alone misleads: "a
photo of a computer mouse" takes "computer mouse", "a crane, a bird" nothing of the name "crane"."""
MAX_RANK = 10  # The class is among the so many names of the memory that fit a drawing best
MAX_DRAWINGS = 40  # Of a class, nearest names first
MAX_ALIKE = 80
"""Drawings that stand for such a class: most of them those in which the teacher sees it most, a few
from all that it takes for the class rather than another (ours; examples/measurements)."""
CUT_TOGETHER = 64  # Drawings
Place = tuple[int, int]  # A drawing: number of its sheet, number in the sheet


@dataclass(frozen=True, slots=True)
class Sheet:
    """One picture of many drawings in rows, of one icon set."""

    path: Path
    names: tuple[str, ...]  # Of each drawing, in reading order
    side_px: int
    num_columns: int

    def drawings(self, wanted: Sequence[int]) -> Tensor:
        """Cut drawings out by their numbers, uint8 [M, C, P, P].

        Raises:
            ConfigError: the sheet is damaged.
        """
        side = self.side_px
        try:
            with Image.open(self.path) as picture:
                pixels = np.asarray(picture.convert("RGBA"))  # an opaque WebP opens as RGB
        except OSError as error:
            raise _incomplete(self.path) from error
        corners = [divmod(number, self.num_columns) for number in wanted]
        cut = [pixels[r * side : (r + 1) * side, c * side : (c + 1) * side] for r, c in corners]
        return torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2)


def read_sheets(folder: Path = assets.EXEMPLARS) -> tuple[Sheet, ...]:
    """Read what the memory holds, without its pixels.

    Raises:
        ConfigError: a part of the memory is missing.
    """
    path = folder / "exemplars.json"
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise _incomplete(path) from error
    sheets = tuple(
        Sheet(folder / f"{style}.webp", tuple(names), index["side_px"], index["num_columns"])
        for style, names in index["names"].items()
    )
    for sheet in sheets:
        if not sheet.path.is_file():
            raise _incomplete(sheet.path)
    return sheets


def _incomplete(path: Path) -> ConfigError:
    return ConfigError("decoder is incomplete", where=str(path), hint="install again")


def all_places(sheets: tuple[Sheet, ...]) -> list[Place]:
    """List every drawing, in the order of the sheets."""
    return [(at, number) for at, sheet in enumerate(sheets) for number in range(len(sheet.names))]


def distinct_names(sheets: tuple[Sheet, ...]) -> dict[str, list[Place]]:
    """Map each name to its drawings, in the order of the sheets."""
    places: dict[str, list[Place]] = {}
    for at, number in all_places(sheets):
        places.setdefault(sheets[at].names[number], []).append((at, number))
    return places


def near_names(name_VD: Tensor, class_KD: Tensor, has_prompt: list[bool]) -> list[list[int]]:
    """Find for each class the rows of the names that lie nearest to it, and near; nearest first."""
    similarity_KV = (class_KD @ name_VD.T).cpu()
    owner_V = similarity_KV.argmax(0)  # a name serves one class, the nearest
    found = []
    for label, (similarity_V, prompted) in enumerate(zip(similarity_KV, has_prompt, strict=True)):
        least = MIN_SIMILARITY_TO_PROMPT if prompted else MIN_SIMILARITY
        is_near_V = (similarity_V >= least) & (owner_V == label)
        order_V = similarity_V.argsort(descending=True, stable=True)
        found.append(order_V[is_near_V[order_V]].tolist())
    return found


def read_embeddings(folder: Path = assets.EXEMPLARS) -> tuple[Tensor, Tensor]:
    """Read what the embedded teacher reads in the distinct names, and sees in the drawings.

    Unit rows are kept as int8, each stretched to its full range.

    Returns:
        [V, D] and [M, D], in the order of the sheets.

    Raises:
        ConfigError: the file is missing or damaged.
    """
    path = folder / EMBEDDINGS
    try:
        tensors = load_tensors(path)
        name_VD, shown_MD = (torch.from_numpy(tensors[kind]) for kind in ("names", "drawings"))
    except (ArtifactError, KeyError) as error:
        raise _incomplete(path) from error
    return F.normalize(name_VD.float(), dim=1), F.normalize(shown_MD.float(), dim=1)


@dataclass(frozen=True, slots=True)
class Found:
    """The drawings of a class."""

    named: list[Place]  # Whose names lie near the class, nearest first
    alike: list[Place]  # Which only look like it, most alike first

    @property
    def places(self) -> list[Place]:
        """All of them."""
        return self.named + self.alike


class DrawingMemory:
    """The drawings, and what the embedded teacher sees in them and reads in their names."""

    def __init__(self, teacher: Teacher) -> None:
        """Read names and embeddings.

        Raises:
            ConfigError: the memory is incomplete, or the teacher is another one.
        """
        if teacher.name != MINI:
            what = f"the memory of drawings holds nothing of what {teacher.name} sees"
            raise ConfigError(what, where="teacher", hint=f"it serves the embedded one, {MINI}")
        self.teacher, self.sheets = teacher, read_sheets()
        by_name = distinct_names(self.sheets)
        self.names, self._places = list(by_name), list(by_name.values())
        self._name_of = {place: name for name, there in by_name.items() for place in there}
        self._row_of = {place: row for row, place in enumerate(all_places(self.sheets))}
        self.name_VD, self.shown_MD = (rows.to(teacher.device) for rows in read_embeddings())

    def search(self, head_KD: Tensor, classes: ClassNames) -> list[Found]:
        """Find for each class at most MAX_DRAWINGS of its name, or what looks like it.

        A small teacher sees "traffic light" near "traffic cone", so names that share only what
        qualifies a class are left out.
        """
        class_KD = F.normalize(head_KD.float(), dim=1)
        near = near_names(self.name_VD, class_KD, [bool(prompt) for prompt in classes.prompts])
        similarity_MK = self.shown_MD @ class_KD.T
        owner_M = similarity_MK.argmax(1)
        found = []
        for label, (rows, name) in enumerate(zip(near, classes.names, strict=True)):
            fitting = [v for v in rows if not is_of_qualifier(self.names[v], name)]
            similarity_M = similarity_MK[:, label].masked_fill(owner_M != label, -1)
            places = [place for v in fitting for place in self._places[v]]
            named = self._seen(places, similarity_M)[:MAX_DRAWINGS]
            found.append(Found(named, self._alike(named, similarity_M)))
        return found

    def named(self, places: Iterable[Place]) -> dict[str, int]:
        """Count drawings by their names, in the order of `places`."""
        return dict(Counter(self._name_of[place] for place in places))

    def shown(self, places: Sequence[Place]) -> Tensor:
        """What the teacher sees in drawings: unit embeddings [M, D]."""
        return self.shown_MD[[self._row_of[place] for place in places]]

    def _seen(self, places: list[Place], similarity_M: Tensor) -> list[Place]:
        """Keep drawings that the teacher takes for a class, few names of the memory before.

        Args:
            places: drawings.
            similarity_M: of all drawings to the class; -1 where another class is nearer.
        """
        if not places:
            return []
        row_N = torch.tensor([self._row_of[place] for place in places])
        similarity_N = similarity_M[row_N]
        num_better_N = (self.shown_MD[row_N] @ self.name_VD.T > similarity_N[:, None]).sum(1)
        is_seen_N = (similarity_N > -1) & (num_better_N < MAX_RANK)
        return [place for place, is_seen in zip(places, is_seen_N.tolist(), strict=True) if is_seen]

    def _alike(self, named: list[Place], similarity_M: Tensor) -> list[Place]:
        """Find drawings for a class with next to none, densely where they are most alike."""
        if len(named) > FEW:
            return []
        order = similarity_M.argsort(descending=True, stable=True)
        num = int((similarity_M > -1).sum())
        wanted = torch.linspace(0, 1, MAX_ALIKE).square() * (num - 1)
        ranks = wanted.long().unique() if num else wanted[:0].long()
        places = list(self._row_of)
        alike = [places[row] for row in order.cpu()[ranks].tolist()]
        return [place for place in alike if place not in named]

    def cut(self, places: list[Place]) -> Iterator[tuple[list[Place], Tensor]]:
        """Yield places and their drawings, uint8 [M, C, P, P], sheet by sheet, a few at a time.

        Raises:
            ConfigError: a sheet is damaged.
        """
        for at, sheet in enumerate(self.sheets):
            here = [place for place in places if place[0] == at]
            if not here:  # opening a sheet decodes all of it
                continue
            rgba_MCPP = sheet.drawings([number for _, number in here])
            for start in range(0, len(here), CUT_TOGETHER):
                part = slice(start, start + CUT_TOGETHER)
                yield here[part], rgba_MCPP[part]


def retrieve_drawings(memory: DrawingMemory, *, only_named: bool = False) -> tuple[Tensor, ...]:
    """Find, for each class, the drawings that its images may start from.

    Args:
        memory: the drawings.
        only_named: leave out what a class takes for want of drawings of its name.

    Returns:
        For each class uint8 [M, C, P, P], on the CPU, nearest first; M may be 0.

    Raises:
        ConfigError: a sheet is damaged.
    """
    searched = memory.search(memory.teacher.head_KD, memory.teacher.classes)
    found = [each.named if only_named else each.places for each in searched]
    rgba_of: dict[Place, Tensor] = {}
    for part, rgba_MCPP in memory.cut([place for places in found for place in places]):
        rgba_of.update(zip(part, rgba_MCPP, strict=True))
    side_px = memory.sheets[0].side_px
    none = torch.zeros((0, 4, side_px, side_px), dtype=torch.uint8)
    return tuple(
        torch.stack([rgba_of[place] for place in places]) if places else none for places in found
    )
