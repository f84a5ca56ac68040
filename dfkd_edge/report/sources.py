"""What a report is made of: every file of a run, its bundles and its devices, as far as there."""

from dataclasses import dataclass, field
from pathlib import Path

from dfkd_edge.artifacts import FewShotSummary, PromptSet, StudentSettings, SurrogateSummary
from dfkd_edge.bundles.opening import holds_student_of
from dfkd_edge.config.settings import PipelineConfig
from dfkd_edge.errors import DfkdEdgeError
from dfkd_edge.report.svg import Point
from dfkd_edge.results.benchmark import Benchmark
from dfkd_edge.results.certainty import certainty_of
from dfkd_edge.results.device import DeviceResult
from dfkd_edge.results.kept import Int8Notes, Rescue, repair_text
from dfkd_edge.results.ladder import Ladder
from dfkd_edge.results.swap import Swap
from dfkd_edge.runtime.bundle_files import Bundle

Curves = dict[tuple[str, str], list[Point]]  # Stage and metric -> steps and values


@dataclass(frozen=True, slots=True)
class Climb:
    """A ladder and what climbed it."""

    command: str  # `distill`, `export` or `check`
    ladder: Ladder
    target: str = ""
    bundle: Path | None = None  # The one that was measured; `distill` measures none

    @property
    def origin(self) -> str:
        """What measured it, for which target, when and on which images, in words."""
        whose = f" for {self.target}" if self.target else ""
        when = f" on {self.ladder.time[:10]}" if self.ladder.time else ""
        images = f", {self.ladder.images}" if self.ladder.images else ""
        return f"measured by {self.command}{whose}{when}{images}"

    def summary(self) -> dict[str, object]:
        """Describe it for `report --json`."""
        ladder, measured = self.ladder, certainty_of(self.ladder)
        return {
            "command": self.command,
            "target": self.target,
            "time": ladder.time or None,
            "data": ladder.data or None,
            "measure": ladder.metric,
            "rung": measured.rung,
            "mean": measured.share,
            "interval": [measured.low, measured.high],
            "num_images": measured.num_images,
            "gate": ladder.gate.headline() if ladder.gate else None,
        }


@dataclass(frozen=True, slots=True)
class LintWarning:
    """What the lint of an exported graph noted."""

    rule: str
    node: str
    message: str


@dataclass(frozen=True, slots=True)
class ExportRecord:
    """What a manifest says of the export that made the bundle."""

    run: str = ""
    data: str = ""  # Folder of labelled pictures; empty without
    config: dict[str, object] = field(default_factory=dict)
    """Settings by their names in ExportConfig."""
    lint_warnings: tuple[LintWarning, ...] = ()
    seconds: float | None = None
    swap: Swap | None = None  # Where classes were swapped after an export
    rescue: Rescue | None = None  # Where INT8 was repaired


@dataclass(frozen=True, slots=True)
class Calibration:
    """What INT8 was calibrated on, calibration.json."""

    method: str
    images: str  # In words
    ranges: dict[str, Point]
    """Quantized tensor -> lowest and highest value, in the order of the graph."""


@dataclass(frozen=True, slots=True)
class BundleSource:
    """A bundle and what was measured on it."""

    bundle: Bundle
    record: ExportRecord
    int8_notes: Int8Notes
    validation: Ladder | None  # Of `export`
    checks: tuple[Ladder, ...]
    """Of the last `check` on each folder of labelled pictures, and of the last without."""
    calibration: Calibration | None
    benchmark: Benchmark | None  # Of `dfkd-edge benchmark`, on the host

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.bundle.folder

    @property
    def target(self) -> str:
        """Name of what it is for."""
        return self.bundle.manifest.target

    def is_of(self, run: Path) -> bool:
        """Whether it holds the student that lies in a run now."""
        return holds_student_of(run, self.bundle.manifest.provenance)

    @property
    def shows_images_of(self) -> tuple[object, object]:
        """Student of the run and seed, on which all views of its surrogate images depend."""
        made, swap = self.bundle.manifest.provenance, self.record.swap
        return swap.student_sha256 if swap else made.get("student_sha256"), made.get("seed")

    @property
    def decision(self) -> str:
        """What the gates decided, no firmer than their pictures allow, and what was repaired."""
        gate = self.validation.gate if self.validation else None
        decided = gate.headline() if gate else f"gate {self.bundle.manifest.status}"
        labelled = [ladder for ladder in self.checks if ladder.metric == "top1"]
        several = len(labelled) > 1
        checked = [
            f"by check on labelled pictures{f' of {Path(ladder.data).name}' * several}: "
            f"{ladder.gate.headline()}"
            for ladder in labelled
            if ladder.gate
        ]
        decided = "by export: " * bool(checked) + decided
        return "; ".join(filter(None, (decided, *checked, self.repair)))

    @property
    def repair(self) -> str:
        """What was repaired after INT8 missed the gate, in words; empty without."""
        return repair_text(self.record.rescue, self.int8_notes)

    @property
    def float_layers(self) -> tuple[str, ...]:
        """Layers of the INT8 graph that the repair put back to float."""
        return self.int8_notes.float_nodes or ()

    @property
    def climbs(self) -> list[Climb]:
        """Its ladders, the one to trust most first: on labelled pictures, then the newest."""
        found = [Climb("check", ladder, self.target, self.folder) for ladder in self.checks]
        if self.validation:
            found.append(Climb("export", self.validation, self.target, self.folder))
        return sorted(found, key=lambda climb: climb.ladder.metric != "top1")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSource:
    """A run, finished or not."""

    path: Path
    classes: tuple[str, ...] = ()  # Of its list; its student, where there is one, has the same
    config: PipelineConfig | None = None
    student: StudentSettings | None = None
    evaluation: Ladder | None = None
    zero_shot: Ladder | None = None
    """Evaluation of the same run without real pictures, where that lies beside this one."""
    surrogates: SurrogateSummary | None = None  # The images are read one shard at a time
    real: FewShotSummary | None = None  # Real pictures that joined the surrogate images
    prompts: PromptSet | None = None
    curves: Curves = field(default_factory=dict)  # Of metrics.jsonl


@dataclass(frozen=True, slots=True)
class Sources:
    """All that a report shows."""

    path: Path  # The run or the bundle that the report is about
    run: RunSource | None
    bundles: tuple[BundleSource, ...]  # The newest first
    devices: tuple[DeviceResult, ...]  # Of bundles that the page shows
    other_devices: tuple[DeviceResult, ...] = ()
    """Of bundles that it does not show: earlier ones, or those of another run."""
    stale: tuple[BundleSource, ...] = ()
    """Bundles in the run that hold an earlier student: what they prove is not the run's."""
    sent: tuple[DeviceResult, ...] = ()
    """Of `devices` and `other_devices`, what was given: it is not kept yet."""
    unread: tuple[DfkdEdgeError, ...] = ()  # Why results that lie here cannot be read

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        listed = self.run.classes if self.run else ()
        return self.student.classes if self.student else listed

    @property
    def student(self) -> StudentSettings | None:
        """Settings of the student; None before there is one."""
        if self.run and self.run.student:
            return self.run.student
        return StudentSettings.load(self.bundles[0].folder / "student") if self.bundles else None

    @property
    def climbs(self) -> list[Climb]:
        """Every ladder, the one of the verdict first: labelled, last in the line, newest."""
        found = [climb for bundle in self.bundles for climb in bundle.climbs]
        if self.run and self.run.evaluation:
            found.append(Climb("distill", self.run.evaluation))
        return found

    @property
    def leading(self) -> list[Climb]:
        """The climb of the verdict, and the next of its bundle by the other metric."""
        first, others = self.climbs[:1], self.climbs[1:]
        metrics, bundle = {climb.ladder.metric for climb in first}, first and first[0].bundle
        beside = [climb for climb in others if bundle and climb.bundle == bundle]
        return [*first, *[climb for climb in beside if climb.ladder.metric not in metrics][:1]]

    @property
    def device_summaries(self) -> list[dict[str, object]]:
        """What `report --json` says of the devices."""
        known = {bundle.bundle.sha256 for bundle in self.bundles}
        return [result.summary(known) for result in (*self.devices, *self.other_devices)]
