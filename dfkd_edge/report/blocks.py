"""What a section is made of; the template knows how each looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from markupsafe import Markup

from dfkd_edge.report.pictures import ContactSheet

NOTES_PLACE = "see the notes below the ladder"
"""Where the page says, once, what the figures of a ladder do not."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table."""

    text: str
    note: str = ""
    """Said smaller, below."""
    shade: float | None = None
    """0 to 1: how strongly the cell is tinted."""
    tone: str = ""
    """`good` or `bad`."""
    hint: str = ""
    """Said on hover."""


@dataclass(frozen=True, slots=True)
class Table:
    """Headings and rows; the first cell of a row names it."""

    kind: ClassVar[str] = "table"
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    is_dense: bool = False


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures side by side, below each other on a phone."""

    kind: ClassVar[str] = "figures"
    items: tuple[Markup, ...]


@dataclass(frozen=True, slots=True)
class Sheet:
    """The contact sheet."""

    kind: ClassVar[str] = "sheet"
    sheet: ContactSheet
    note: str
    """What its columns are."""


@dataclass(frozen=True, slots=True)
class StyleMap:
    """The map of prompts and the styles that can be picked out on it."""

    kind: ClassVar[str] = "map"
    figure: Markup
    styles: tuple[str, ...]
    note: str
    """What a style is."""


@dataclass(frozen=True, slots=True)
class Code:
    """Text to copy."""

    kind: ClassVar[str] = "code"
    title: str
    text: str
    is_folded: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values."""

    kind: ClassVar[str] = "facts"
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Notes:
    """Lines of text."""

    kind: ClassVar[str] = "notes"
    title: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Missing:
    """What is not there yet, and the command that makes it."""

    kind: ClassVar[str] = "missing"
    what: str
    command: str


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page."""

    key: str
    title: str
    lead: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Tile:
    """One figure of the verdict."""

    name: str
    value: str
    note: str


@dataclass(frozen=True, slots=True)
class VerdictView:
    """What the page says first."""

    state: str
    """`open`, or that of a gate: `off`, `failed`, `doubtful`, `passed` or `proven`."""
    headline: str
    sentence: str
    tiles: tuple[Tile, ...] = ()
    certainty: str = ""
    """How many pictures stand behind the figures, and their interval."""
    weak_classes: str = ""
    """Those that the student fails on."""
    is_doubtful: bool = False
    """Whether they are too few to tell."""


Block = Table | Figures | Sheet | StyleMap | Code | Facts | Notes | Missing


def text_row(*texts: str) -> tuple[Cell, ...]:
    """Make a row of plain cells."""
    return tuple(Cell(text) for text in texts)
