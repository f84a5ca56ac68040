"""Figures as inline SVG: a canvas with scales, in classes that the style sheet colours.

Every text that may come from a user is escaped here, so that a class name can never become markup.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

NUM_TICKS = 4
NOTHING = "-"
TIMES = "\N{MULTIPLICATION SIGN}"
Point = tuple[float, float]  # x and y in pixels, from the left and from the top
Words = Callable[[float], str]  # How a tick is written


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
        share = (self._place(value) - low) / ((high - low) or 1.0)  # all values may be equal
        return self.start_px + share * (self.end_px - self.start_px)

    def _place(self, value: float) -> float:
        return math.log10(max(value, 1e-12)) if self.is_log else value  # log of 0 is no place

    def ticks(self) -> list[float]:
        """Round values inside the scale."""
        if self.is_log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            steps = (1, 2, 5) if last - first < 3 else (1,)
            marks = [s * 10.0**e for e in range(first, last + 1) for s in steps]
            return [m for m in marks if self.low <= m <= self.high]
        step = _round_step((self.high - self.low) / NUM_TICKS)
        # without the tolerance, rounding errors would lose a tick on the border
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def _round_step(rough: float) -> float:
    if rough <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(rough))
    return next((s * power for s in (1, 2, 2.5, 5) if s * power >= rough), 10 * power)


def number_text(value: float) -> str:
    """Write a number with three digits, or whole from a thousand on."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def percent(value: float | None, digits: int = 1) -> str:
    """Write a share as a percentage."""
    return NOTHING if value is None else f"{100 * value:.{digits}f}%"


class Svg:
    """Collects shapes; `render` gives the figure."""

    def __init__(self, width: int, height: int, label: str, caption: str = "") -> None:
        """Start a figure of so many px; the label is for those who cannot see it."""
        self._size, self._label = (width, height), label
        self._parts: list[Markup] = []
        if caption:
            self.text((0, 12), caption, "caption")

    def shape(self, tag: str, kind: str, title: str = "", **places: float) -> None:
        """Draw a shape in a class of the style sheet; the title is said on hover."""
        # nobody sees less than a tenth of a pixel, and a page holds thousands of them
        numbers = (f'{k.replace("_", "-")}="{round(v, 1):g}"' for k, v in places.items())
        opening = Markup(f'<{tag} class="{kind}" {" ".join(numbers)}>')
        hint = Markup("<title>{}</title>").format(title) if title else Markup("")
        self._parts.append(opening + hint + Markup(f"</{tag}>"))

    def line(self, start: Point, end: Point, kind: str, title: str = "", width: float = 1) -> None:
        """Draw a straight line."""
        (x1, y1), (x2, y2) = start, end
        self.shape("line", kind, title, x1=x1, y1=y1, x2=x2, y2=y2, stroke_width=width)

    def path(self, points: Sequence[Point], kind: str) -> None:
        """Draw a line through points."""
        steps = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(Markup(f'<polyline class="{kind}" points="{steps}"/>'))

    def circle(
        self, centre: Point, radius: float, kind: str, title: str = "", group: int = 0
    ) -> None:
        """Draw a point; `group` lets the page pick points out."""
        self.shape("circle", kind, title, cx=centre[0], cy=centre[1], r=radius, data_g=group)

    def text(self, place: Point, text: str, kind: str = "label", anchor: str = "start") -> None:
        """Write a text."""
        opening = f'<text class="{kind}" x="{place[0]:.1f}" y="{place[1]:.1f}"'
        opening += f' text-anchor="{anchor}">'
        self._parts.append(Markup(opening + "{}</text>").format(text))

    def rows(self, scale: Scale, span: Point, write: Words = number_text) -> None:
        """Draw the lines of a vertical scale from left to right, with a label before each."""
        for tick in scale.ticks():
            self.line((span[0], scale(tick)), (span[1], scale(tick)), "grid")
            self.text((span[0] - 6, scale(tick) + 4), write(tick), anchor="end")

    def columns(self, scale: Scale, span: Point, write: Words = number_text) -> None:
        """Draw the lines of a horizontal scale from top to bottom, with a label below each."""
        for tick in scale.ticks():
            self.line((scale(tick), span[0]), (scale(tick), span[1]), "grid")
            self.text((scale(tick), span[1] + 16), write(tick), anchor="middle")

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
