"""The figures of the report; each is narrow enough for a phone and stands alone.

Shape suffixes: N prompts, D embedding width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from dfkd_edge.artifacts import PromptSet
from dfkd_edge.report.svg import Scale, Svg, number_text, percent, short

WIDTH = 316
"""Of a figure: three beside each other on a desk, one on a phone."""
LEFT, RIGHT = 84, 56
LETTER_PX = 6.6
"""About the width of a letter of a label."""
ROW = 26
MAX_PROMPTS = 1_500
MAX_NAMED_CLASSES = 24


@dataclass(frozen=True, slots=True)
class Estimate:
    """A measured share and its interval."""

    name: str
    value: float
    low: float
    high: float


def interval_figure(title: str, estimates: Sequence[Estimate]) -> Markup:
    """Shares as points with their intervals, one row each; the last one is the result."""
    height = ROW * len(estimates) + 52
    low = min(e.low for e in estimates)
    bottom = max(0.0, math.floor(low * 10 - 0.5) / 10)
    svg = Svg(WIDTH, height, f"{title}: shares with their 95% intervals")
    scale = Scale(bottom, 1.0, LEFT, WIDTH - RIGHT)
    svg.text((0, 12), short(title, 40), "caption")
    for tick in scale.ticks():
        svg.line((scale(tick), 22), (scale(tick), height - 22), "grid")
        svg.text((scale(tick), height - 6), percent(tick, 0), anchor="middle")
    for row, estimate in enumerate(estimates):
        y = 22 + ROW * (row + 0.5)
        kind = "main" if row == len(estimates) - 1 else "other"
        svg.text((0, y + 4), short(estimate.name, 13))
        svg.line((scale(estimate.low), y), (scale(estimate.high), y), f"range {kind}")
        hint = f"{estimate.name}: {percent(estimate.low)} to {percent(estimate.high)}"
        svg.circle((scale(estimate.value), y), 4.5, f"dot {kind}", hint)
        svg.text((WIDTH, y + 4), percent(estimate.value), "label value", "end")
    return svg.render()


def reliability_figure(title: str, ece: float, bins: Sequence[Sequence[Any]]) -> Markup:
    """Confidence against the share right; the diagonal is a confidence that keeps its word."""
    side, left, top = 256, 44, 24
    svg = Svg(left + side + 16, top + side + 40, f"{title}: expected calibration error {ece:.3f}")
    x, y = Scale(0, 1, left, left + side), Scale(0, 1, top + side, top)
    svg.text((0, 12), f"{title}: ECE {percent(ece)}", "caption")
    for tick in (0, 0.5, 1):
        svg.line((x(tick), top), (x(tick), top + side), "grid")
        svg.line((left, y(tick)), (left + side, y(tick)), "grid")
        svg.text((x(tick), top + side + 16), percent(tick, 0), anchor="middle")
        svg.text((left - 6, y(tick) + 4), percent(tick, 0), anchor="end")
    svg.text((left + side / 2, top + side + 34), "confidence", anchor="middle")
    svg.line((x(0), y(0)), (x(1), y(1)), "ideal")
    filled = [(count, c, right) for count, c, right in bins if count]
    largest = max((count for count, _, _ in filled), default=1)
    svg.path([(x(confidence), y(right)) for _, confidence, right in filled], "curve main")
    for count, confidence, right in filled:
        hint = f"{count} images: confidence {percent(confidence)}, right {percent(right)}"
        svg.circle((x(confidence), y(right)), 3 + 6 * math.sqrt(count / largest), "dot main", hint)
    return svg.render()


@dataclass(frozen=True, slots=True)
class SpeedPoint:
    """A precision: what it costs and what it gives."""

    name: str
    latency_ms: float
    share: float


def speed_figure(points: Sequence[SpeedPoint], share_name: str) -> Markup:
    """Latency (log) against accuracy; up and to the left is better."""
    height, left, top, bottom = 280, 48, 24, 240
    svg = Svg(WIDTH, height, f"latency against {share_name}")
    slowest = max(p.latency_ms for p in points)
    fastest = min(p.latency_ms for p in points)
    x = Scale(fastest / 1.6, slowest * 1.6, left, WIDTH - 12, is_log=True)
    low, high = min(p.share for p in points), max(p.share for p in points)
    margin = max(0.02, (high - low) * 0.25)
    y = Scale(max(0, low - margin), min(1.02, high + margin), bottom, top)
    digits = 0 if all(abs(100 * t - round(100 * t)) < 1e-9 for t in y.ticks()) else 1
    svg.text((0, 12), f"{share_name}; up and left is better", "caption")
    for tick in y.ticks():
        svg.line((left, y(tick)), (WIDTH - 12, y(tick)), "grid")
        svg.text((left - 6, y(tick) + 4), percent(tick, digits), anchor="end")
    for tick in x.ticks():
        svg.line((x(tick), top), (x(tick), bottom), "grid")
        svg.text((x(tick), bottom + 16), number_text(tick), anchor="middle")
    svg.text(
        ((left + WIDTH) / 2, bottom + 34),
        "ms an image on this host, in ONNX Runtime unless named",
        anchor="middle",
    )
    dots = [(x(p.latency_ms), y(p.share)) for p in points]
    taken = [(across - 6, across + 6, down + 4) for across, down in dots]
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


def _free_line(
    span: tuple[float, float], base: float, taken: Sequence[tuple[float, float, float]]
) -> float:
    """Move a label down until it covers no point and no other label."""
    for start, end, other in sorted(taken, key=lambda box: box[2]):
        if start < span[1] and span[0] < end and abs(other - base) < 13:
            base = other + 13
    return base


def curve_figure(title: str, points: Sequence[tuple[float, float]]) -> Markup:
    """One metric over its steps."""
    height, left, top, bottom = 170, 44, 24, 140
    svg = Svg(WIDTH, height, f"{title} by step")
    steps, values = [p[0] for p in points], [p[1] for p in points]
    low, high = min(values), max(values)
    room = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    x = Scale(min(steps), max(max(steps), min(steps) + 1), left, WIDTH - 12)
    y = Scale(low - room, high + room, bottom, top)
    svg.text((0, 12), title, "caption")
    svg.text((WIDTH - 12, 12), f"last {number_text(values[-1])}", "label value", "end")
    for tick in y.ticks():
        svg.line((left, y(tick)), (WIDTH - 12, y(tick)), "grid")
        svg.text((left - 6, y(tick) + 4), number_text(tick), anchor="end")
    svg.text((left, bottom + 20), f"step {min(steps):g}")
    svg.text((WIDTH - 12, bottom + 20), f"{max(steps):g}", anchor="end")
    svg.path([(x(step), y(value)) for step, value in points], "curve main")
    svg.circle((x(steps[-1]), y(values[-1])), 3.5, "dot main")
    return svg.render()


def ranges_figure(ranges: Mapping[str, Sequence[float]]) -> Markup:
    """What every quantized tensor spans, in the order of the graph."""
    height, left, top, bottom = 240, 44, 24, 210
    svg = Svg(WIDTH, height, f"activation ranges of {len(ranges)} tensors")
    low = min(pair[0] for pair in ranges.values())
    high = max(pair[1] for pair in ranges.values())
    y = Scale(min(low, 0), max(high, 1e-6), bottom, top)
    width = (WIDTH - left - 8) / len(ranges)
    svg.text((0, 12), "range of each quantized tensor", "caption")
    for tick in y.ticks():
        svg.line((left, y(tick)), (WIDTH - 8, y(tick)), "grid")
        svg.text((left - 6, y(tick) + 4), number_text(tick), anchor="end")
    for number, (name, pair) in enumerate(ranges.items()):
        x = left + width * (number + 0.5)
        hint = f"{name}: {pair[0]:.3g} to {pair[1]:.3g}"
        svg.bar((x, y(pair[0])), (x, y(pair[1])), width * 0.7, hint)
    svg.text((left, bottom + 22), "input")
    svg.text((WIDTH - 8, bottom + 22), "output", anchor="end")
    return svg.render()


def prompt_map(prompts: PromptSet) -> Markup:
    """Prompt embeddings on their two widest axes; a point a prompt, its style is its group."""
    side, top = 440, 28
    place_N2, share = principal_plane(prompts.embeddings)
    svg = Svg(side, side + top, f"{len(place_N2)} prompt embeddings on two principal axes")
    svg.text((0, 14), f"two widest axes, {percent(share, 0)} of the variance", "caption")
    svg.rect((0.5, top), (side - 1, side - 1), "frame")
    low, high = place_N2.min(0), place_N2.max(0)
    x = Scale(float(low[0]), float(high[0]), 24, side - 24)
    y = Scale(float(low[1]), float(high[1]), top + side - 24, top + 24)
    every = max(1, math.ceil(len(place_N2) / MAX_PROMPTS))
    for row in range(0, len(place_N2), every):
        style, label = int(prompts.style_index[row]), int(prompts.class_index[row])
        hint = f"{prompts.class_names[label]}, style {prompts.style_labels[style]}"
        spot = (x(float(place_N2[row, 0])), y(float(place_N2[row, 1])))
        svg.circle(spot, 4, "prompt", hint, style)
    for label, name in enumerate(prompts.class_names[:MAX_NAMED_CLASSES]):
        middle = place_N2[prompts.class_index == label].mean(0)
        spot = (x(float(middle[0])), y(float(middle[1])) + 4)
        svg.text(spot, short(name, 18), "label place", "middle")
    return svg.render()


def principal_plane(embedding_ND: NDArray[np.float32]) -> tuple[NDArray[np.float64], float]:
    """Project on the two axes of largest variance; returns [N, 2] and the share they hold."""
    centred_ND = embedding_ND.astype(np.float64) - embedding_ND.mean(0)
    values, vectors = np.linalg.eigh(centred_ND.T @ centred_ND)
    total = float(values.clip(0).sum())
    plane_N2: NDArray[np.float64] = centred_ND @ vectors[:, [-1, -2]]
    return plane_N2, float(values[[-1, -2]].clip(0).sum() / total) if total > 0 else 0.0
