"""How sure a measured figure is: its interval, the pictures behind it, and when they are too few.

Reads the documents of `distill`, `export` and `check` alike. Resampling three pictures that are all
right never gives a wrong one, so a bootstrap alone calls them certain: no interval here is narrower
than that of so many independent pictures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.share_interval import (
    TOO_FEW_WITHIN,
    interval_text,
    is_too_wide,
    mean_interval,
    wilson_interval,
)

MEASURES = {"top1": "top-1", "agreement": "agreement with the teacher"}
UNITS = {"top1": "picture", "agreement": "image"}
"""What is counted: labelled pictures, or images that were made."""
CLEAN_AND_CORRUPTED = "clean and corrupted"


def shown_text(num_images: int, num_pictures: int, noun: str, kind: str = "") -> str:
    """Write `943 pictures`, or `1,200 views of 943 pictures` where some were shown repeatedly.

    Args:
        num_images: shown.
        num_pictures: different ones among these.
        noun: what a picture is called.
        kind: what sort of images were shown, such as `clean`.
    """
    kind = f"{kind} " if kind else ""
    if num_images > num_pictures:
        return f"{num_images:,} {kind}views of {counted(num_pictures, noun)}"
    return counted(num_pictures, f"{kind}{noun}")


@dataclass(frozen=True, slots=True)
class Certainty:
    """The figure of a rung, in the mean over domains, and how much can be made of it."""

    rung: str
    measure: str
    """`top1` or `agreement`."""
    share: float
    low: float
    high: float
    num_images: int
    """Shown, in all domains and views."""
    num_pictures: int
    """Different ones among these."""
    is_corrupted: bool = False
    """Whether corrupted images are among them, in domains of their own."""

    @property
    def is_too_wide(self) -> bool:
        """Whether so few pictures tell little; agreement on surrogates claims no accuracy."""
        return self.measure == "top1" and is_too_wide(self.low, self.high)

    @property
    def images(self) -> str:
        """How many images there are, in words."""
        if self.measure == "top1":
            return shown_text(self.num_images, self.num_pictures, "labelled picture")
        kind = CLEAN_AND_CORRUPTED if self.is_corrupted else "clean"
        return shown_text(self.num_images, self.num_pictures, "surrogate image", kind)

    @property
    def interval(self) -> str:
        """The interval in words."""
        return interval_text(self.low, self.high)

    def sentence(self) -> str:
        """Say all of it in one line."""
        figure = f"{self.rung} {100 * self.share:.1f}% {MEASURES[self.measure]}"
        warning = f": {TOO_FEW_WITHIN}" if self.is_too_wide else ""
        return f"{figure}, {self.interval}, on {self.images}{warning}"


def difference(after: Certainty, before: Certainty) -> tuple[float, float, float]:
    """Gain of one figure over another with its ends (Newcombe 1998, his method 10).

    The interval is that of separate pictures: on the same ones, where both err together, it is too
    wide rather than too narrow.
    """
    gain = after.share - before.share
    below = math.hypot(after.share - after.low, before.high - before.share)
    above = math.hypot(after.high - after.share, before.share - before.low)
    return gain, gain - below, gain + above


def measure_of(document: Mapping[str, Any]) -> str:
    """What counts as right in a document: `top1` or `agreement`."""
    stated = document.get("measure")
    if stated:
        return str(stated)
    return "agreement" if document.get("retention") is None else "top1"


def shown_domains(document: Mapping[str, Any]) -> list[str]:
    """Name the domains whose figures stand side by side.

    After `distill` with labelled pictures the surrogates, of which there is agreement alone, do
    not.
    """
    names = list(document["rungs"][0]["domains"])
    is_mixed = "measure" not in document and measure_of(document) == "top1"
    return names[1:] if is_mixed else names


def domains_of(document: Mapping[str, Any]) -> list[str]:
    """Name the domains that count in means; older files and `distill` do not list them."""
    return list(document.get("mean_over") or shown_domains(document))


def domain_label(document: Mapping[str, Any], domain: str) -> str:
    """Write a domain's name, with a star where a note says that agreement there says little."""
    return domain + "*" * (domain in document.get("collapsed", {}))


def collapse_notes(document: Mapping[str, Any]) -> list[str]:
    """Say where the teacher hardly tells classes apart, a sentence each; see `domain_label`."""
    notes, averaged = [], domains_of(document)
    for domain, found in document.get("collapsed", {}).items():
        left_out = "" if domain in averaged else " and the mean leaves it out"
        notes.append(
            f"{domain}*: the teacher calls {100 * found['share']:.0f}% of these images "
            f"{found['answer']}, so agreement says little{left_out}; the gate counts a loss there"
        )
    return notes


def whole_text(document: Mapping[str, Any]) -> str:
    """State the figure on images that are shown whole and count in no mean, as `distill` does."""
    rung, measure, averaged = document["rungs"][-1], measure_of(document), domains_of(document)
    apart = (d for d in shown_domains(document) if d not in averaged)
    return "".join(
        f"; whole, as distill shows them: {100 * rung['domains'][domain][measure]:.1f}%"
        for domain in apart
        if domain not in document.get("collapsed", {})
    )


def interval_of(figures: Mapping[str, Any], measure: str) -> tuple[float, float]:
    """Return the interval of a rung in a domain; older files hold none, or one of a bootstrap."""
    share = float(figures[measure])
    low, high = figures.get(f"{measure}_interval") or (share, share)
    least, most = wilson_interval(share, figures["num_images"])
    return min(low, least), max(high, most)


def certainty_of(document: Mapping[str, Any]) -> Certainty:
    """Sum up what the last rung of a document reached: the one that is shipped."""
    measure, rung = measure_of(document), document["rungs"][-1]
    parts = [rung["domains"][domain] for domain in domains_of(document)]
    figures = [(float(part[measure]), *interval_of(part, measure)) for part in parts]
    mean = mean_interval(figures, is_shared=measure == "agreement")
    shown = images_and_pictures(document)
    return Certainty(str(rung["name"]), measure, *mean, *shown, is_corrupted(document))


def is_corrupted(document: Mapping[str, Any]) -> bool:
    """Whether figures are means over clean and corrupted surrogates: these have several domains."""
    return measure_of(document) == "agreement" and len(domains_of(document)) > 1


def images_and_pictures(document: Mapping[str, Any]) -> tuple[int, int]:
    """How many images a rung was shown, and how many different ones; older files tell the first.

    Surrogates are shown in every domain, labelled pictures in one.
    """
    rung = document["rungs"][-1]
    parts = [rung["domains"][domain] for domain in domains_of(document)]
    num_images = sum(int(part["num_images"]) for part in parts)
    if measure_of(document) == "top1" or not all("num_pictures" in part for part in parts):
        return num_images, num_images
    return num_images, max(int(part["num_pictures"]) for part in parts)


def unit_of(document: Mapping[str, Any]) -> str:
    """Name what a document counts: views, where its images were shown repeatedly."""
    num_images, num_pictures = images_and_pictures(document)
    return "view" if num_images > num_pictures else UNITS[measure_of(document)]


class GateState(StrEnum):
    """What a gate's pictures allow to say."""

    OFF = "off"
    """The limit is so large that nothing can fail."""
    FAILED = "failed"
    DOUBTFUL = "doubtful"
    """Passed, but so few pictures tell nothing."""
    PASSED = "passed"
    """The measured loss is within the limit; its interval reaches beyond."""
    PROVEN = "proven"
    """All of the interval is within the limit."""


def gate_state(gate: Mapping[str, Any]) -> GateState:
    """Sort a gate by what `Verdict.document` writes; older files know no gate that is off."""
    low, high = gate["interval"]
    if gate.get("off"):
        return GateState.OFF
    if not gate["passed"]:
        return GateState.FAILED
    if is_too_wide(low, high):
        return GateState.DOUBTFUL
    return GateState.PASSED if high > gate["max_drop"] else GateState.PROVEN


def gate_doubt(gate: Mapping[str, Any]) -> str:
    """Say what the pictures behind a gate are too few for; nothing where they suffice."""
    if gate.get("off"):
        return ""
    few = f"too few {UNITS[gate['measure']]}s to"
    if is_too_wide(*gate["interval"]):
        return f"{few} tell"
    if gate_state(gate) is GateState.PASSED:
        return f"{few} exclude a loss above the {100 * gate['max_drop']:g}-point limit"
    return ""


def gate_word(gate: Mapping[str, Any]) -> str:
    """Name what a gate decided in a word; one that nothing can fail decides nothing."""
    if gate.get("off"):
        return f"off, for {off_reason(gate)}"
    return "passed" if gate["passed"] else "FAILED"


def failed_gate_advice(gate: Mapping[str, Any]) -> str:
    """Say what to do about a bundle that failed; it lies there, so another one needs --exist-ok."""
    ways = ["--precision fp16"] * str(gate["rung"]).endswith("int8") + ["a larger --max-drop"]
    more = "check with more pictures, for the loss is within noise; or " * gate["within_noise"]
    return f"{more}export with --exist-ok and {' or '.join(ways)}"


def points_text(max_drop: float) -> str:
    """Write the limit of a gate with its unit."""
    return f"{100 * max_drop:g} point{'s' * (max_drop != 0.01)}"


def limit_text(max_drop: float) -> str:
    """Name the limit of a gate."""
    return f"limit {points_text(max_drop)}"


def off_reason(gate: Mapping[str, Any]) -> str:
    """Say why nothing can fail a gate that is off."""
    if gate["max_drop"] >= 1:
        return f"its limit of {points_text(gate['max_drop'])} lets every loss pass"
    right = "right" if gate["measure"] == "top1" else "in agreement with the teacher"
    share = points_text(gate["max_drop"])
    return f"the FP32 student is {right} on no more than the {share} that it may lose"


def gate_headline(gate: Mapping[str, Any], target: str = "") -> str:
    """Name what a gate decided, no firmer than its pictures allow."""
    whose = f" for {target}" if target else ""
    state = gate_state(gate)
    if state is GateState.OFF:
        return f"gate off{whose}: {off_reason(gate)}"
    if state is GateState.FAILED:
        return f"gate failed{whose}"
    if state is GateState.PROVEN:
        return f"conversion proven{whose}"
    return f"gate passed{whose}, {gate_doubt(gate)}"


def certainty_line(document: Mapping[str, Any]) -> str:
    """Make the line of a closing panel that says how much the figure is worth."""
    return f"measured    {certainty_of(document).sentence()}{whole_text(document)}"


def ladder_notes(document: Mapping[str, Any]) -> list[str]:
    """What must be read with a ladder, a sentence each: on domains, graphs, and times of rungs.

    Args:
        document: of `distill`, `export` or `check`.
    """
    doubts = [
        f"{rung['name']}{where}: {doubt}"
        for rung in document["rungs"]
        for key, where in (("latency_doubts", ""), ("onnx_latency_doubts", " as an FP32 graph"))
        for doubt in rung.get(key, ())
    ]
    return [*collapse_notes(document), *document.get("notes", ()), *doubts]
