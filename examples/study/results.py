"""From finished cells to the study's table, its paired differences and its plot.

A figure is the mean over domains of the mean over seeds. Its interval resamples the pictures; what
seeds change is shown beside it, as their range, because three seeds are too few to resample.

Shape suffixes: N pictures of all domains.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from arms import ARMS
from cells import PICTURES
from numpy.typing import NDArray

from dfkd_edge.files import atomic_write
from dfkd_edge.machine.doctor import describe_environment
from dfkd_edge.validation.statistics import Interval

Document = dict[str, Any]
Results = Mapping[str, Sequence[Document]]
COMPARISONS = (
    *(("contrastive", other) for other in ("base", "mix", "random")),
    *((f"{method}-seconds", "base") for method in ("mix", "random", "contrastive", "per-image")),
    *((arm, "per-image") for arm in ("amortized-few", "contrastive", "descent-few", "descent")),
    *(("network-few", "descent-few"), ("network", "descent")),
    *(("pixels-few-seconds", "descent-few"), ("pixels-few", "per-image"), ("pixels", "descent")),
    *((f"{arm}-pretrained", arm) for arm in ("contrastive-drawings", "real")),
    ("mix-domain-words", "mix"),
    *(("contrastive", "dead-leaves"), ("contrastive", "real")),
)
"""(arm, the arm it is held against)."""


def _right_N(document: Document) -> NDArray[np.float64]:
    """Right or wrong, weighted so that the mean over N is the mean over domains."""
    domains = [np.array(list(digits), np.float64) for digits in document["domains"].values()]
    total = sum(len(part) for part in domains)
    weighted: NDArray[np.float64] = np.concatenate(
        [part * total / (len(part) * len(domains)) for part in domains]
    )
    return weighted


def _mean(documents: Sequence[Document], *path: str) -> float | None:
    numbers = []
    for document in documents:
        value: Any = document
        for name in path:
            value = value.get(name, {})
        if isinstance(value, int | float):
            numbers.append(float(value))
    return float(np.mean(numbers)) if numbers else None


def _making_s(documents: Sequence[Document]) -> float | None:
    parts = [_mean(documents, "seconds", stage) for stage in ("prompts", "synthesis")]
    return sum(p or 0.0 for p in parts) if any(p is not None for p in parts) else None


def bootstrap_interval(value_N: np.ndarray) -> Interval:
    """Mean of a figure of each picture, with the 95 % interval of the bootstrap over pictures.

    A mean depends on how often each distinct value was drawn and on nothing else, so the counts are
    drawn, from their multinomial distribution.
    """
    distinct, count = np.unique(value_N, return_counts=True)
    rng = np.random.default_rng(0)  # equal pictures, equal interval
    means = rng.multinomial(len(value_N), count / len(value_N), 2_000) @ distinct / len(value_N)
    low, high = np.quantile(means, [0.025, 0.975])
    return Interval(float(value_N.mean()), float(low), float(high))


def row(arm: str, results: Results) -> Document:
    """Figures of an arm over its seeds."""
    documents = results[arm]
    flags = [_right_N(document) for document in documents]
    interval = bootstrap_interval(np.mean(flags, 0).round(9))
    by_seed = [float(flag.mean()) for flag in flags]
    teacher = results.get(ARMS[arm].teacher)
    ceiling = float(_right_N(teacher[0]).mean()) if teacher else 0.0
    names = documents[0]["domains"]
    return {
        "arm": arm,
        "title": ARMS[arm].title,
        "seeds": [document["seed"] for document in documents],
        "top1": interval.mean,
        "interval": [interval.low, interval.high],
        "by_seed": by_seed,
        "retention": interval.mean / ceiling if ceiling else None,
        "domains": {
            name: float(np.mean([d["domains"][name].count("1") for d in documents]))
            / len(names[name])
            for name in names
        },
        "num_images": _mean(documents, "facts", "num_images"),
        "acceptance": _mean(documents, "facts", "acceptance"),
        "distance_within_class": _mean(documents, "facts", "mean_distance_within_class"),
        "prompt_cosine": _mean(documents, "facts", "mean_pairwise_cosine"),
        "making_s": _making_s(documents),
        "synthesis_cpu_s": _mean(documents, "cpu_seconds", "synthesis"),
        "distillation_s": _mean(documents, "seconds", "distillation"),
    }


def difference(arm: str, other: str, results: Results) -> Document:
    """Compare two arms on the same pictures and seeds."""
    ours, theirs = ({d["seed"]: d for d in results[name]} for name in (arm, other))
    shared = [seed for seed in ours if seed in theirs]
    delta = [_right_N(ours[seed]) - _right_N(theirs[seed]) for seed in shared]
    interval = bootstrap_interval(np.mean(delta, 0).round(9))
    arms = [[d[seed] for seed in shared] for d in (ours, theirs)]
    seconds = [_mean(documents, "cpu_seconds", "synthesis") for documents in arms]
    candidates = [_mean(documents, "facts", "num_candidates") for documents in arms]
    distances = [_mean(documents, "facts", "mean_distance_within_class") for documents in arms]
    comparable = all(seconds) and not {ARMS[arm].kind, ARMS[other].kind} & set(PICTURES)
    ratio = _ratio(seconds) if comparable else None
    more = _ratio(candidates[::-1])
    return {
        "arm": arm,
        "other": other,
        "seeds": shared,
        "difference": interval.mean,
        "interval": [interval.low, interval.high],
        "by_seed": [float(d.mean()) for d in delta],
        "synthesis_time_ratio": ratio,
        "time_ratio_of_an_image": ratio * more if ratio and more else None,
        "distance_ratio": _ratio(distances[::-1]),
    }


def _ratio(values: Sequence[float | None]) -> float | None:
    """Divide the second value by the first, where there are both."""
    first, second = values
    return second / first if first and second else None


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _span(values: Sequence[float], form: str = ".1f") -> str:
    low, high = (format(100 * v, form) for v in (min(values), max(values)))
    return f"{low} to {high}"


def _number(value: float | None, form: str = ".0f") -> str:
    return "-" if value is None else format(value, form)


def _times(ratio: float | None) -> str:
    return f"{ratio:.1f}x" if ratio else "-"


def markdown(document: Document) -> str:
    """Write the table, the differences and what they were made with."""
    rows, differences = document["rows"], document["differences"]
    domains = list(rows[0]["domains"])
    heads = ["pictures learnt from", "top-1 %", "95 % interval", "range over seeds", "retention %"]
    heads += [*domains, "images", "recognised %", "distance in class", "making s", "CPU s"]
    heads += ["distilling s"]
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    for r in rows:
        cells = [r["title"], _percent(r["top1"]), _span(r["interval"]), _span(r["by_seed"])]
        cells += [_percent(r["retention"]), *(_percent(r["domains"][d]) for d in domains)]
        cells += [_number(r["num_images"]), _percent(r["acceptance"])]
        cells += [_number(r["distance_within_class"], ".3f"), _number(r["making_s"])]
        cells += [_number(r["synthesis_cpu_s"]), _number(r["distillation_s"])]
        lines.append(f"| {' | '.join(cells)} |")
    if differences:
        heads = ["difference", "points", "95 % interval", "range over seeds", "speed-up"]
        heads += ["of an image", "distance, relative"]
        lines += ["", f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    for d in differences:
        cells = [f"{ARMS[d['arm']].title} - {ARMS[d['other']].title}"]
        cells += [f"{100 * d['difference']:+.1f}"]
        cells += [_span(d["interval"], "+.1f"), _span(d["by_seed"], "+.1f")]
        cells += [_times(d["synthesis_time_ratio"]), _times(d["time_ratio_of_an_image"])]
        cells.append(_number(d["distance_ratio"], ".2f"))
        lines.append(f"| {' | '.join(cells)} |")
    facts = ", ".join(f"{key} {value}" for key, value in document["environment"].items())
    return "\n".join([*lines, "", f"`{document['command']}`", "", facts, ""])


def plot(rows: Sequence[Document]) -> bytes:
    """Draw each arm's figure, its interval and its seeds; returns a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.4 + 0.34 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for height, r in enumerate(rows):
        axes.plot([100 * v for v in r["interval"]], [height] * 2, color="#8aa9c9", linewidth=5)
        seeds = [100 * v for v in r["by_seed"]]
        axes.plot(seeds, [height] * len(seeds), "|", color="#555555", markersize=10)
        axes.plot(100 * r["top1"], height, "o", color="#12436d")
        if r["arm"] == "teacher":
            axes.axvline(100 * r["top1"], color="#bbbbbb", linestyle=":")
    axes.set_yticks(range(len(rows)), [r["title"] for r in rows])
    axes.invert_yaxis()
    axes.set_xlabel("top-1, %, mean over domains: 95 % interval over pictures, one tick a seed")
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=140)
    return buffer.getvalue()


def write_results(results: Results, output: Path, command: str) -> Document:
    """Write table.json, table.md and plot.png for the cells that are finished."""
    document: Document = {
        "rows": [row(arm, results) for arm in ARMS if results.get(arm)],
        "differences": [
            difference(arm, other, results)
            for arm, other in COMPARISONS
            if {d["seed"] for d in results.get(arm, ())}
            & {d["seed"] for d in results.get(other, ())}
        ],
        "command": command,
        "environment": describe_environment(),
    }
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    atomic_write(output / "table.json", text)
    atomic_write(output / "table.md", markdown(document))
    atomic_write(output / "plot.png", plot(document["rows"]))
    return document
