"""Figures as inline SVG: a canvas with scales, in classes that the style sheet colours.

Every text and attribute is escaped here, so that a class name can never become markup.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

NUM_TICKS = 4
NOTHING = "-"
TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values to pixels, linearly or by their logarithm."""

    low: float
    high: float
    start_px: float
    end_px: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """Place a value."""
        low, high = self._place(self.low), self._place(self.high)
        share = (self._place(value) - low) / ((high - low) or 1.0)
        return self.start_px + share * (self.end_px - self.start_px)

    def _place(self, value: float) -> float:
        return math.log10(max(value, 1e-12)) if self.is_log else value

    def ticks(self) -> list[float]:
        """Round values inside the scale."""
        if self.is_log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            steps = (1, 2, 5) if last - first < 3 else (1,)
            marks = [s * 10.0**e for e in range(first, last + 1) for s in steps]
            return [m for m in marks if self.low <= m <= self.high]
        step = _round_step((self.high - self.low) / NUM_TICKS)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def _round_step(rough: float) -> float:
    if rough <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    return next((s * power for s in (1, 2, 2.5, 5) if s * power >= rough), 10 * power)


def number_text(value: float) -> str:
    """Write a number shortly."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def percent(value: float | None, digits: int = 1) -> str:
    """Write a share as a percentage."""
    return NOTHING if value is None else f"{100 * value:.{digits}f}%"


class Svg:
    """Collects shapes; `render` gives the figure."""

    def __init__(self, width: int, height: int, label: str) -> None:
        """Start a figure of this size; the label is for those who cannot see it."""
        self._size, self._label = (width, height), label
        self._parts: list[Markup] = []

    def line(self, start: tuple[float, float], end: tuple[float, float], kind: str) -> None:
        """Draw a straight line."""
        (x1, y1), (x2, y2) = start, end
        self._add(f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')

    def path(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        """Draw a line through points."""
        steps = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._add(f'<polyline class="{kind}" points="{steps}"/>')

    def circle(
        self, centre: tuple[float, float], radius: float, kind: str, title: str = "", group: int = 0
    ) -> None:
        """Draw a point; `title` is shown on hover, `group` lets the page pick points out."""
        shape = f'cx="{centre[0]:.1f}" cy="{centre[1]:.1f}" r="{radius:.1f}"'
        self._add(f'<circle class="{kind}" data-g="{group}" {shape}>', title, "</circle>")

    def bar(
        self, start: tuple[float, float], end: tuple[float, float], width: float, title: str
    ) -> None:
        """Draw a thick line with a hint."""
        (x1, y1), (x2, y2) = start, end
        shape = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
        self._add(f'<line class="bar" stroke-width="{width:.1f}" {shape}>', title, "</line>")

    def rect(self, corner: tuple[float, float], size: tuple[float, float], kind: str) -> None:
        """Draw a box."""
        (x, y), (width, height) = corner, size
        shape = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
        self._add(f'<rect class="{kind}" {shape}/>')

    def text(
        self, place: tuple[float, float], text: str, kind: str = "label", anchor: str = "start"
    ) -> None:
        """Write a text."""
        opening = f'<text class="{kind}" x="{place[0]:.1f}" y="{place[1]:.1f}"'
        self._parts.append(
            Markup('{} text-anchor="{}">{}</text>').format(Markup(opening), anchor, text)
        )

    def _add(self, opening: str, title: str = "", closing: str = "") -> None:
        inner = Markup("<title>{}</title>").format(title) if title else Markup("")
        self._parts.append(Markup(opening) + inner + Markup(closing))

    def render(self) -> Markup:
        """Return the figure."""
        width, height = self._size
        opening = Markup(
            '<svg viewBox="0 0 {} {}" style="--w:{}px" role="img" aria-label="{}">'
        ).format(width, height, width, self._label)
        return opening + Markup("").join(self._parts) + Markup("</svg>")


def short(text: str, length: int) -> str:
    """Cut a text to a length."""
    return text if len(text) <= length else text[: length - 1] + "…"
