"""What a section is made of; the template knows, by the name of the class, how each looks."""

from collections.abc import Sequence
from typing import NamedTuple, Self

from markupsafe import Markup

from dfkd_edge.report.pictures import Rows


class Cell(NamedTuple):
    """One cell of a table."""

    text: str
    note: str = ""  # Said smaller, below
    shade: float | None = None  # 0 to 1: how strongly the cell is tinted
    tone: str = ""  # `good` or `bad`
    hint: str = ""  # Said on hover

    @classmethod
    def row(cls, *texts: str) -> tuple[Self, ...]:
        """Make a row of plain cells."""
        return tuple(map(cls, texts))


class Table(NamedTuple):
    """Headings and rows; the first cell of a row names it."""

    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    is_dense: bool = False


class Figures(NamedTuple):
    """Figures side by side, below each other on a phone."""

    figures: Sequence[Markup]


class Sheet(NamedTuple):
    """The contact sheet."""

    rows: Rows
    styles: tuple[str, ...]  # Its columns
    note: str  # What a column is


class StyleMap(NamedTuple):
    """The map of prompts and the styles that can be picked out on it."""

    figure: Markup
    styles: tuple[str, ...]
    note: str  # What a style is


class Code(NamedTuple):
    """Text to copy."""

    title: str
    text: str
    is_folded: bool = False


class Facts(NamedTuple):
    """Names and values; an empty value is not shown."""

    pairs: Sequence[tuple[str, str]]


class Notes(NamedTuple):
    """Lines of text; not shown without any."""

    title: str
    lines: Sequence[str]


class Missing(NamedTuple):
    """What is not there yet, and the command that makes it."""

    what: str
    command: str


Block = Table | Figures | Sheet | StyleMap | Code | Facts | Notes | Missing


class Section(NamedTuple):
    """A part of the page; its title is in the table of all sections."""

    blocks: Sequence[Block]
    lead: str = ""


class Tile(NamedTuple):
    """One figure of the verdict."""

    name: str
    value: str
    note: str


class VerdictView(NamedTuple):
    """What the page says first."""

    state: str  # `open`, or that of a gate: `off`, `failed`, `doubtful`, `passed` or `proven`
    headline: str
    sentence: str
    tiles: Sequence[Tile] = ()
    certainty: str = ""  # How many pictures stand behind the figures, and their interval
    weak_classes: str = ""  # Those that the student fails on
    is_doubtful: bool = False  # Whether the pictures are too few to tell
