"""The figures of the report; each is narrow enough for a phone and stands alone.

Shape suffixes: N prompts, D embedding width.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from dfkd_edge.artifacts import PromptSet
from dfkd_edge.report.svg import Point, Scale, Svg, number_text, percent, short
from dfkd_edge.results.confidence import Reliability

WIDTH = 316  # Of a figure: three beside each other on a desk, one on a phone
LEFT, TOP = 44, 24
LETTER_PX = 6.6  # About the width of a letter of a label
LINE_PX = 13
ROW_PX = 26
MAX_PROMPTS = 1_500  # Points of the map: more make a page of megabytes and cover each other
MAX_NAMED_CLASSES = 24
whole_percent = functools.partial(percent, digits=0)


class Estimate(NamedTuple):
    """A measured share and its interval."""

    name: str
    value: float
    low: float
    high: float


def interval_figure(title: str, estimates: Sequence[Estimate]) -> Markup:
    """Shares as points with their intervals, one row each; the last one is the result."""
    height = ROW_PX * len(estimates) + 52
    # shares lie close together, so the axis begins at the tenth below the lowest end
    bottom = max(0.0, math.floor(min(e.low for e in estimates) * 10 - 0.5) / 10)
    svg = Svg(WIDTH, height, f"{title}: shares with their 95% intervals", short(title, 40))
    scale = Scale(bottom, 1.0, 84, WIDTH - 56)
    svg.columns(scale, (22, height - 22), whole_percent)
    for row, estimate in enumerate(estimates):
        y = 22 + ROW_PX * (row + 0.5)
        kind = "main" if row == len(estimates) - 1 else "other"
        svg.text((0, y + 4), short(estimate.name, 13))
        svg.line((scale(estimate.low), y), (scale(estimate.high), y), f"range {kind}")
        hint = f"{estimate.name}: {percent(estimate.low)} to {percent(estimate.high)}"
        svg.circle((scale(estimate.value), y), 4.5, f"dot {kind}", hint)
        svg.text((WIDTH, y + 4), percent(estimate.value), "label value", "end")
    return svg.render()


def reliability_figure(title: str, measured: Reliability) -> Markup:
    """Confidence against the share right; the diagonal is a confidence that keeps its word."""
    side, label = 256, f"{title}: expected calibration error {measured.ece or 0:.3f}"
    caption = f"{title}: ECE {percent(measured.ece)}"
    svg = Svg(LEFT + side + 16, TOP + side + 40, label, caption)
    x, y = Scale(0, 1, LEFT, LEFT + side), Scale(0, 1, TOP + side, TOP)
    svg.rows(y, (LEFT, LEFT + side), whole_percent)
    svg.columns(x, (TOP, TOP + side), whole_percent)
    svg.text((LEFT + side / 2, TOP + side + 34), "confidence", anchor="middle")
    svg.line((x(0), y(0)), (x(1), y(1)), "ideal")
    filled = [(n, sure, right) for n, sure, right in measured.bins if sure is not None]
    largest = max((n for n, _, _ in filled), default=1)
    svg.path([(x(sure), y(right or 0)) for _, sure, right in filled], "curve main")
    for n, sure, right in filled:
        hint = f"{n} images: confidence {percent(sure)}, right {percent(right)}"
        radius = 3 + 6 * math.sqrt(n / largest)  # the area tells how many
        svg.circle((x(sure), y(right or 0)), radius, "dot main", hint)
    return svg.render()


class SpeedPoint(NamedTuple):
    """A precision: what it costs and what it gives."""

    name: str
    latency_ms: float
    share: float


def speed_figure(points: Sequence[SpeedPoint], share_name: str) -> Markup:
    """Latency (log) against accuracy; up and to the left is better."""
    left, bottom, end = 48, 240, WIDTH - 12
    caption = f"{share_name}; up and left is better"
    svg = Svg(WIDTH, 280, f"latency against {share_name}", caption)
    times, shares = [p.latency_ms for p in points], [p.share for p in points]
    x = Scale(min(times) / 1.6, max(times) * 1.6, left, end, is_log=True)
    margin = max(0.02, (max(shares) - min(shares)) * 0.25)
    y = Scale(max(0, min(shares) - margin), min(1.02, max(shares) + margin), bottom, TOP)
    # neighbouring ticks of small shares would read alike without a decimal
    is_whole = all(abs(100 * tick - round(100 * tick)) < 1e-9 for tick in y.ticks())
    svg.rows(y, (left, end), whole_percent if is_whole else percent)
    svg.columns(x, (TOP, bottom))
    below = "ms an image on this host, in ONNX Runtime unless named"
    svg.text(((left + WIDTH) / 2, bottom + 34), below, anchor="middle")
    taken = [(x(p.latency_ms) - 6, x(p.latency_ms) + 6, y(p.share) + 4) for p in points]
    for number, point in enumerate(sorted(points, key=lambda p: y(p.share))):
        place = (x(point.latency_ms), y(point.share))
        kind = "main" if point is points[-1] else "other"
        hint = f"{point.name}: {point.latency_ms:.2f} ms, {percent(point.share)}"
        svg.circle(place, 6, f"dot {kind}", hint, number)
        is_right = place[0] > WIDTH * 0.6
        aside = place[0] - 11 if is_right else place[0] + 11
        width = LETTER_PX * len(point.name)
        start = aside - width if is_right else aside
        base = _free_line((start, start + width), place[1] + 4, taken)
        taken.append((start, start + width, base))
        svg.text((aside, base), point.name, "label strong", "end" if is_right else "start")
    return svg.render()


def _free_line(span: Point, base: float, taken: Sequence[tuple[float, float, float]]) -> float:
    """Move a baseline down until its label covers none of these: start, end and baseline."""
    for start, end, other in sorted(taken, key=lambda box: box[2]):
        if start < span[1] and span[0] < end and abs(other - base) < LINE_PX:
            base = other + LINE_PX
    return base


def curve_figure(title: str, points: Sequence[Point]) -> Markup:
    """One metric over its steps."""
    bottom, end = 140, WIDTH - 12
    svg = Svg(WIDTH, 170, f"{title} by step", title)
    steps, values = [p[0] for p in points], [p[1] for p in points]
    low, high = min(values), max(values)
    room = (high - low) * 0.08 or abs(high) * 0.1 or 1.0  # of a flat curve, and of zeros
    x = Scale(min(steps), max(max(steps), min(steps) + 1), LEFT, end)
    y = Scale(low - room, high + room, bottom, TOP)
    svg.text((end, 12), f"last {number_text(values[-1])}", "label value", "end")
    svg.rows(y, (LEFT, end))
    svg.text((LEFT, bottom + 20), f"step {min(steps):g}")
    svg.text((end, bottom + 20), f"{max(steps):g}", anchor="end")
    svg.path([(x(step), y(value)) for step, value in points], "curve main")
    svg.circle((x(steps[-1]), y(values[-1])), 3.5, "dot main")
    return svg.render()


def ranges_figure(ranges: Mapping[str, Point]) -> Markup:
    """What every quantized tensor spans, in the order of the graph."""
    bottom, end = 210, WIDTH - 8
    label = f"activation ranges of {len(ranges)} tensors"
    svg = Svg(WIDTH, 240, label, "range of each quantized tensor")
    low, high = min(r[0] for r in ranges.values()), max(r[1] for r in ranges.values())
    y = Scale(min(low, 0), max(high, 1e-6), bottom, TOP)  # zero is in every INT8 range
    svg.rows(y, (LEFT, end))
    width = (end - LEFT) / len(ranges)
    for number, (name, (low, high)) in enumerate(ranges.items()):
        x = LEFT + width * (number + 0.5)
        hint = f"{name}: {low:.3g} to {high:.3g}"
        svg.line((x, y(low)), (x, y(high)), "bar", hint, width * 0.7)
    svg.text((LEFT, bottom + 22), "input")
    svg.text((end, bottom + 22), "output", anchor="end")
    return svg.render()


def prompt_map(prompts: PromptSet) -> Markup:
    """Prompt embeddings on their two widest axes; a point a prompt, its style is its group."""
    side, top = 440, 28
    place_N2, share = principal_plane(prompts.embeddings)
    label = f"{len(place_N2)} prompt embeddings on two principal axes"
    caption = f"two widest axes, {whole_percent(share)} of the variance"
    svg = Svg(side, side + top, label, caption)
    svg.shape("rect", "frame", x=0.5, y=top, width=side - 1, height=side - 1)
    (left, low), (right, high) = place_N2.min(0).tolist(), place_N2.max(0).tolist()
    x, y = Scale(left, right, 24, side - 24), Scale(low, high, top + side - 24, top + 24)
    for row in range(0, len(place_N2), max(1, math.ceil(len(place_N2) / MAX_PROMPTS))):
        style, number = int(prompts.style_index[row]), int(prompts.class_index[row])
        hint = f"{prompts.class_names[number]}, style {prompts.style_labels[style]}"
        svg.circle((x(place_N2[row, 0]), y(place_N2[row, 1])), 4, "prompt", hint, style)
    for number, name in enumerate(prompts.class_names[:MAX_NAMED_CLASSES]):
        across, up = place_N2[prompts.class_index == number].mean(0)
        svg.text((x(across), y(up) + 4), short(name, 18), "label place", "middle")
    return svg.render()


def principal_plane(embedding_ND: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    """Project on the two axes of largest variance; returns [N, 2] and the share they hold."""
    centred_ND = embedding_ND.astype(np.float64) - embedding_ND.mean(0)
    values, vectors = np.linalg.eigh(centred_ND.T @ centred_ND)  # in ascending order
    total = float(values.clip(0).sum())  # rounding makes the smallest ones negative
    plane_N2: NDArray[np.float64] = centred_ND @ vectors[:, [-1, -2]]
    return plane_N2, float(values[[-1, -2]].clip(0).sum() / total) if total > 0 else 0.0
