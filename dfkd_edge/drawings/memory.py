"""The named drawings in the embedded decoder's memory, and which of them show a class.

A drawing serves a class when its name lies near the class in the teacher's text space and the
teacher sees the class in it, among the other classes of the list and among all names of the memory.

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
from dfkd_edge.class_names import ClassNames
from dfkd_edge.drawings.embedding_cache import Place, cache_path, read_cache, write_cache
from dfkd_edge.drawings.names import is_of_qualifier
from dfkd_edge.errors import ConfigError
from dfkd_edge.interfaces import Reporter
from dfkd_edge.networks.teacher import Teacher

NAME_TEXT = "a drawing of a {}"
"""What the teacher reads of a drawing's name; a class is what the zero-shot head holds of it."""
MIN_SIMILARITY = 0.7
"""Cosine of names that may stand for a class: "horse head" for horse, not "dog" for a breed."""
MIN_SIMILARITY_TO_PROMPT = 0.95
"""The same where a class has a prompt of its own, which tells that its name alone misleads: "a
photo of a computer mouse" takes "computer mouse", "a crane, a bird" nothing of the name "crane"."""
MAX_RANK = 10  # The class is among the so many names of the memory that fit a drawing best
MAX_DRAWINGS = 40  # Of a class, nearest names first
BATCH_SIZE = 64  # Texts or drawings that the teacher reads together


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


def distinct_names(sheets: tuple[Sheet, ...]) -> dict[str, list[Place]]:
    """Map each name to its drawings, in the order of the sheets."""
    places: dict[str, list[Place]] = {}
    for at, sheet in enumerate(sheets):
        for number, name in enumerate(sheet.names):
            places.setdefault(name, []).append((at, number))
    return places


@torch.no_grad()
def embed_names(names: list[str], teacher: Teacher, reporter: Reporter) -> Tensor:
    """Embed the names of drawings, unit rows [V, D]."""
    parts = []
    with reporter.stage("searching the memory", len(names)) as progress:
        for start in range(0, len(names), BATCH_SIZE):
            texts = [NAME_TEXT.format(name) for name in names[start : start + BATCH_SIZE]]
            parts.append(teacher.embed_texts(texts))
            progress.advance(len(texts))
    return torch.cat(parts)


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


class DrawingMemory:
    """The drawings and their embeddings; each is embedded once on a machine."""

    def __init__(self, teacher: Teacher, reporter: Reporter) -> None:
        """Read the drawings' names and embed them, unless the cache has their embeddings.

        Raises:
            ConfigError: the memory is incomplete.
        """
        self.teacher, self.reporter, self.sheets = teacher, reporter, read_sheets()
        self.places = distinct_names(self.sheets)
        self.names = list(self.places)
        self._name_of = {place: name for name, there in self.places.items() for place in there}
        self._path = cache_path(teacher, NAME_TEXT)
        name_VD, shown = read_cache(self._path)
        if name_VD is None:
            name_VD = embed_names(self.names, teacher, reporter)
            write_cache(self._path, name_VD, shown)
        self.name_VD = name_VD.to(teacher.device)
        self._shown = {place: row.to(teacher.device) for place, row in shown.items()}

    def search(self, head_KD: Tensor, classes: ClassNames) -> list[list[Place]]:
        """Find for each class at most MAX_DRAWINGS in which the teacher sees it.

        A small teacher sees "traffic light" near "traffic cone", so names that share only what
        qualifies a class are left out.

        Returns:
            For each class its drawings, nearest names first; may be none.
        """
        class_KD = F.normalize(head_KD.float(), dim=1)
        near = near_names(self.name_VD, class_KD, [bool(prompt) for prompt in classes.prompts])
        found = [
            [
                place
                for drawing in (self.names[v] for v in rows)
                if not is_of_qualifier(drawing, name)
                for place in self.places[drawing]
            ]
            for name, rows in zip(classes.names, near, strict=True)
        ]
        self._embed([place for places in found for place in places])
        return [self._seen(places, k, class_KD)[:MAX_DRAWINGS] for k, places in enumerate(found)]

    def named(self, places: Iterable[Place]) -> dict[str, int]:
        """Count drawings by their names, in the order of `places`."""
        return dict(Counter(self._name_of[place] for place in places))

    @torch.no_grad()
    def _embed(self, places: list[Place]) -> None:
        new = [place for place in places if place not in self._shown]
        if not new:
            return
        with self.reporter.stage("looking at the drawings", len(new)) as progress:
            for part, rgba_MCPP in self.cut(new):
                rgba = rgba_MCPP.to(self.teacher.device).float() / 255
                on_white = rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:]  # the teacher reads no alpha
                self._shown.update(zip(part, self.teacher.embed_images(on_white), strict=True))
                progress.advance(len(part))
        write_cache(self._path, self.name_VD, self._shown)

    def _seen(self, places: list[Place], label: int, class_KD: Tensor) -> list[Place]:
        """Keep drawings that the teacher takes for this class, few names of the memory before."""
        if not places:
            return []
        shown_MD = torch.stack([self._shown[place] for place in places])
        similarity_MK = shown_MD @ class_KD.T
        num_better_M = (shown_MD @ self.name_VD.T > similarity_MK[:, label, None]).sum(1)
        is_seen_M = (similarity_MK.argmax(1) == label) & (num_better_M < MAX_RANK)
        return [place for place, is_seen in zip(places, is_seen_M.tolist(), strict=True) if is_seen]

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
            for start in range(0, len(here), BATCH_SIZE):
                part = slice(start, start + BATCH_SIZE)
                yield here[part], rgba_MCPP[part]


def retrieve_drawings(memory: DrawingMemory) -> tuple[Tensor, ...]:
    """Find, for each class, the drawings that the teacher recognises as that class.

    Returns:
        For each class uint8 [M, C, P, P], on the CPU, nearest names first; M may be 0.

    Raises:
        ConfigError: a sheet is damaged.
    """
    found = memory.search(memory.teacher.head_KD, memory.teacher.classes)
    rgba_of: dict[Place, Tensor] = {}
    for part, rgba_MCPP in memory.cut([place for places in found for place in places]):
        rgba_of.update(zip(part, rgba_MCPP, strict=True))
    side_px = memory.sheets[0].side_px
    none = torch.zeros((0, 4, side_px, side_px), dtype=torch.uint8)
    return tuple(
        torch.stack([rgba_of[place] for place in places]) if places else none for places in found
    )
