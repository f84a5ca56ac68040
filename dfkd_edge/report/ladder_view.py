"""One ladder, read for the report: the documents of `distill`, `export` and `check` alike."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from dfkd_edge.conversion.calibration_need import CalibrationShortage, find_shortage
from dfkd_edge.errors import ConfigError
from dfkd_edge.report.sources import Document, RunSource, Sources
from dfkd_edge.results.certainty import (
    MEASURES,
    certainty_of,
    domain_label,
    domains_of,
    gate_headline,
    interval_of,
    measure_of,
    shown_domains,
)
from dfkd_edge.results.confidence import pooled_reliability
from dfkd_edge.results.wording import UNITS
from dfkd_edge.runs.run_dir import distill_again
from dfkd_edge.runtime.counting import counted
from dfkd_edge.target_profiles.lookup import load_target

TEACHER, STUDENT = "teacher", "student"
NOTES_PLACE = "see the notes below the ladder"
"""Where the page says, once, what the figures of a ladder do not."""


@dataclass(frozen=True, slots=True)
class LadderView:
    """Rungs by domains, and what counts as right on them."""

    command: str
    """What climbed it: `distill`, `export` or `check`."""
    target: str
    document: Document
    bundle: str = ""
    """Folder of the bundle that was measured; `distill` measures none."""

    @property
    def measure(self) -> str:
        """`top1` or `agreement`."""
        return measure_of(self.document)

    @property
    def measure_name(self) -> str:
        """The measure in words."""
        return MEASURES[self.measure]

    @property
    def rungs(self) -> list[Document]:
        """From the teacher to the last conversion."""
        return list(self.document["rungs"])

    @property
    def last(self) -> Document:
        """The rung that is shipped."""
        return self.rungs[-1]

    @property
    def domains(self) -> list[str]:
        """Names of those that are shown side by side."""
        return shown_domains(self.document)

    @property
    def origin(self) -> str:
        """What measured it, when, for which target and on which images, in words."""
        measured = str(self.document.get("time", ""))[:10]
        images = self.document.get("images")
        return (
            f"measured by {self.command}"
            + (f" for {self.target}" if self.target else "")
            + (f" on {measured}" if measured else "")
            + (f", {images}" if images else "")
        )

    def runtime(self, rung: Document) -> str:
        """What ran a rung."""
        if rung["name"] == "engine":
            return "TensorRT"
        return "ONNX Runtime" if str(rung["name"]).startswith("onnx-") else "PyTorch"

    def summary(self) -> Document:
        """Describe it for `report --json`."""
        measured, gate = certainty_of(self.document), self.document.get("gate")
        return {
            "command": self.command,
            "target": self.target,
            "time": self.document.get("time"),
            "data": self.document.get("data"),
            "measure": self.measure,
            "rung": measured.rung,
            "mean": measured.share,
            "interval": [measured.low, measured.high],
            "num_images": measured.num_images,
            "gate": gate_headline(gate) if gate else None,
        }

    def label(self, domain: str) -> str:
        """Its name and how many images of it were shown; a star points to a note."""
        figures = self.last["domains"][domain]
        is_repeated = figures.get("num_pictures", figures["num_images"]) < figures["num_images"]
        unit = "view" if is_repeated else UNITS[self.measure]
        name = domain_label(self.document, domain)
        return f"{name}, {counted(int(figures['num_images']), unit)}"

    def rung(self, name: str) -> Document:
        """Find a rung by its name."""
        return next(rung for rung in self.rungs if rung["name"] == name)

    def share(self, rung: Document, domain: str) -> float:
        """The measure of a rung in a domain."""
        return float(rung["domains"][domain][self.measure])

    def interval(self, rung: Document, domain: str) -> tuple[float, float]:
        """Its interval."""
        return interval_of(rung["domains"][domain], self.measure)

    def mean(self, rung: Document) -> float:
        """Mean of the measure over the domains that count in it."""
        shares = [self.share(rung, domain) for domain in domains_of(self.document)]
        return sum(shares) / len(shares)

    def reliability(self, rung: Document, key: str) -> Document | None:
        """Bins of all domains together: `ece`, `bins`, `temperature`; None where not measured."""
        return pooled_reliability(self.document, rung, key)


def read_ladders(sources: Sources) -> list[LadderView]:
    """Every ladder, the one that the verdict rests on first: labelled, last in the line, newest."""
    ladders = [
        LadderView(command, str(bundle.manifest.get("target", "")), document, str(bundle.folder))
        for bundle in sources.bundles
        for command, document in bundle.ladders
    ]
    if sources.run and sources.run.evaluation:
        ladders.append(LadderView("distill", "", sources.run.evaluation))
    return ladders


def leading_ladders(sources: Sources) -> list[LadderView]:
    """The ladder of the verdict, and where it is labelled the next of its bundle that is not."""
    ladders = read_ladders(sources)
    first = ladders[:1]
    others = [
        one
        for one in ladders
        if one.command != "distill"
        and one.bundle == first[0].bundle
        and one.measure != first[0].measure
    ]
    return [*first, *others[:1]]


def subject(sources: Sources) -> str:
    """The run or bundle as an argument of a command."""
    return shlex.quote(str(sources.path))


def measuring(sources: Sources, verb: str, flags: str = "") -> str:
    """Command that measures a bundle of this page, after those that make what it needs.

    Args:
        sources: of the page.
        verb: `check` or `benchmark`.
        flags: of that verb.
    """
    if sources.bundles:
        bundle = shlex.quote(str(sources.bundles[0].folder))
        return f"dfkd-edge {verb} {bundle}{flags and f' {flags}'}"
    run = run_argument(sources)
    return f"{exporting(sources)}, then dfkd-edge {verb} {run}{flags and f' {flags}'}"


def exporting(sources: Sources, flags: str = "") -> str:
    """Command that exports the run of this page, after the one that finishes its student."""
    command = f"dfkd-edge export {run_argument(sources)}{flags and f' {flags}'}"
    if sources.run and not sources.student:
        return f"{distill_again(sources.run.path)}, then {command}"
    shortage = sources.run and calibration_shortage(sources.run)
    return f"{command} {shortage.flags[0]}" if shortage else command


def calibration_shortage(run: RunSource) -> CalibrationShortage | None:
    """What a run lacks for the INT8 of its target, where that is known."""
    if run.surrogates is None or run.config is None:
        return None
    config = run.config.export
    try:
        return find_shortage(run.surrogates, config, load_target(config.target))
    except ConfigError:
        return None  # the target's file is gone: export says so


def run_argument(sources: Sources) -> str:
    """The run as an argument of a command."""
    return shlex.quote(str(sources.run.path)) if sources.run else "RUN"
