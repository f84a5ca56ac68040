"""The conversion ladder as it was measured: what `distill`, `export` and `check` all write.

teacher -> student -> onnx-fp32 -> onnx-int8 -> engine, each on the same images, domain by domain,
with the gate between the FP32 student and the last rung. `distill` has the student's start weights
in place of the conversions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfkd_edge.errors import ArtifactError
from dfkd_edge.results.codec import Documented, from_json, to_json
from dfkd_edge.results.confidence import FittedConfidence, Reliability, error_text, pooled
from dfkd_edge.results.gate import Gate
from dfkd_edge.results.wording import UNITS, Metric, times_text
from dfkd_edge.runtime.counting import counted

SCHEMA = 1  # Version of the JSON; a reader refuses a newer one
TEACHER, START, STUDENT, BASELINE = "teacher", "student-start", "student", "baseline"
HELDOUT_DOMAIN = "held-out surrogates"
"""Surrogate images shown whole; on them there is agreement alone, for the filter kept those that
the teacher recognises: its own top-1 says nothing."""
Ends = tuple[float, float]  # Low and high end of a 95% interval


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainFigures:
    """What one rung answered in one domain."""

    num_images: int  # Shown, views included
    num_pictures: int  # Different ones among these
    top1: float
    top1_interval: Ends
    agreement: float  # Share of images with the teacher's answer
    agreement_interval: Ends
    kl_to_previous: float | None
    """KL divergence from the rung before, in nats; None for the teacher."""
    num_nan: int  # Images with a logit that is not finite
    confusion: dict[str, dict[str, int]]
    """Expected class -> answer -> images; expected is the label, or the teacher's answer."""
    reliability: Reliability
    reliability_scaled: Reliability | None = None
    """After the bundle's temperature, where there is one."""

    def share(self, metric: Metric) -> float:
        """Share of images that are right."""
        return self.top1 if metric == "top1" else self.agreement

    def interval(self, metric: Metric) -> Ends:
        """Its interval."""
        return self.top1_interval if metric == "top1" else self.agreement_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRung(Documented):
    """One model of the ladder, in every domain."""

    name: str
    domains: dict[str, DomainFigures]
    mean_top1: float | None  # Over the domains that count; None where nothing is labelled
    mean_agreement: float
    worst_domain: str
    mean_interval: Ends | None = None
    """Of the mean that the metric names; None in what an earlier version wrote."""
    size_bytes: int | None = None
    latency_ms: float | None = None  # Median, one image, on the machine that measured
    onnx_latency_ms: float | None = None
    """Of the teacher: the same as an FP32 graph in ONNX Runtime."""
    latency_caveats: tuple[str, ...] = ()
    """Why that time may mislead, or why there is none; a sentence each."""
    onnx_latency_caveats: tuple[str, ...] = ()
    max_logit_difference: float | None = None
    """Largest absolute difference to the logits of the rung before."""

    @property
    def runtime(self) -> str:
        """What ran it, in words."""
        if self.name == "engine":
            return "TensorRT"
        return "ONNX Runtime" if self.name.startswith("onnx-") else "PyTorch"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLoss(Documented):
    """What one step of the ladder lost, in the mean over domains; negative is a gain."""

    rung: str
    previous: str
    drop: float
    interval: Ends
    worst_domain: str
    worst_drop: float
    num_lost: int  # Images that were right before and wrong after
    num_won: int
    p_value: float
    is_within_noise: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Collapse:
    """A domain in which the teacher hardly tells classes apart, so agreement says little."""

    answer: str  # Its most frequent class
    share: float  # Of the images


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline(Documented):
    """A small CLIP, run as it is on the images that the student was shown."""

    name: str  # As it was asked for
    num_parameters: int  # Of its image tower
    rung: MeasuredRung
    """With size and time of its image tower as an FP32 graph in ONNX Runtime."""
    loss: StepLoss  # From the baseline to the student: negative is what distilling gains
    student_size_bytes: int  # Of the student's weights in FP32
    student_latency_ms: float | None  # Of the student, as that of the baseline
    caveats: tuple[str, ...] = ()  # Why a time may mislead, a sentence each

    @property
    def title(self) -> str:
        """Its name without the folders before it."""
        return Path(self.name).name

    def sentence(self) -> str:
        """Say in one line what the student gains, and what it costs beside the baseline."""
        low, high = (-100 * end for end in reversed(self.loss.interval))
        chance = ", within noise" if self.loss.is_within_noise else ""
        gain = f"{-100 * self.loss.drop:+.1f} points ({low:+.1f} to {high:+.1f}{chance})"
        parts = [f"{gain} over {self.title}"]
        assert self.rung.size_bytes
        parts.append(times_text(self.rung.size_bytes, self.student_size_bytes, "smaller", "larger"))
        if self.rung.onnx_latency_ms and self.student_latency_ms:
            times = (self.rung.onnx_latency_ms, self.student_latency_ms)
            parts.append(times_text(*times, "faster", "slower"))
        return ", ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class RightAnswers:
    """Which images a student got right, to compare with another one image by image."""

    shown: str  # Hash of the images, by their labels and the teacher's answers
    domains: dict[str, str]  # A bit an image, in hex

    def changes(self, before: RightAnswers, domain: str) -> tuple[int, int]:
        """Count the images that `before` got right and this one not, and the reverse."""
        ours, theirs = (int(one.domains[domain], 16) for one in (self, before))
        return (theirs & ~ours).bit_count(), (ours & ~theirs).bit_count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder(Documented):
    """Everything that one climb measured."""

    schema: int = SCHEMA
    classes: tuple[str, ...]
    metric: Metric
    """What counts as right: the label, or the teacher's answer where nothing is labelled."""
    rungs: tuple[MeasuredRung, ...]
    losses: tuple[StepLoss, ...] = ()
    charged_to: str | None = None
    """The conversion that lost most in the mean; None when none lost anything."""
    num_unreadable: int = 0
    mean_over: tuple[str, ...]  # The domains that count in every mean
    collapsed: dict[str, Collapse]
    notes: tuple[str, ...] = ()  # On the graphs, a sentence each
    images: str = ""  # What was shown, in words
    measured_again: tuple[str, ...] = ()
    """Domains that were shown more images, since their loss was over the limit but within noise."""
    gate: Gate | None = None
    confidence: FittedConfidence | None = None
    environment: dict[str, str]
    retention: float | None = None
    """Of `distill` on labelled pictures: the student's mean top-1 over the teacher's."""
    baseline: Baseline | None = None  # Of `distill`, where one was asked for
    truth: Metric | None = None  # The metric once more, as evaluation.json names it
    right: RightAnswers | None = None  # Of `distill`: the student's, by the metric
    key: str = ""
    """Of `distill`: hash of student and pictures; an equal one need not be measured again."""
    bundle: str = ""  # Of `check`: the folder, the hash of its manifest, the pictures, and when
    bundle_sha256: str | None = None
    data: str = ""
    time: str = ""

    @property
    def shipped(self) -> MeasuredRung:
        """The last rung."""
        return self.rungs[-1]

    @property
    def shown_domains(self) -> list[str]:
        """Domains whose figures stand side by side: labelled ones apart from surrogates."""
        names = list(self.rungs[0].domains)
        return [name for name in names if self.metric != "top1" or name != HELDOUT_DOMAIN]

    @property
    def counted(self) -> list[DomainFigures]:
        """Figures of the last rung in the domains that count in means."""
        return [self.shipped.domains[domain] for domain in self.mean_over]

    @property
    def num_images(self) -> int:
        """Images shown in the domains that count."""
        return sum(part.num_images for part in self.counted)

    @property
    def num_pictures(self) -> int:
        """Different ones: surrogates are shown in every domain, labelled pictures in one."""
        if self.metric == "top1":
            return self.num_images
        return max(part.num_pictures for part in self.counted)

    @property
    def is_corrupted(self) -> bool:
        """Whether means are over clean and corrupted surrogates: these have several domains."""
        return self.metric == "agreement" and len(self.mean_over) > 1

    @property
    def unit(self) -> str:
        """What is counted: pictures, images, or views where some were shown repeatedly."""
        return "view" if self.num_images > self.num_pictures else UNITS[self.metric]

    @property
    def charged_loss(self) -> StepLoss | None:
        """The step that lost most."""
        return next((loss for loss in self.losses if loss.rung == self.charged_to), None)

    @property
    def is_whole(self) -> bool:
        """Whether every rung answers in every domain, and the teacher is among them."""
        domains, names = self.rungs[0].domains.keys(), [rung.name for rung in self.rungs]
        beside = [self.baseline.rung] if self.baseline else []
        return (
            TEACHER in names
            and (not self.baseline or STUDENT in names)
            and all(rung.domains.keys() == domains for rung in (*self.rungs, *beside))
            and domains >= {*self.mean_over}
        )

    def rung(self, name: str) -> MeasuredRung:
        """Find a rung by its name."""
        return next(rung for rung in self.rungs if rung.name == name)

    def mean(self, rung: MeasuredRung) -> float:
        """Mean of the metric over the domains that count."""
        shares = [rung.domains[domain].share(self.metric) for domain in self.mean_over]
        return sum(shares) / len(shares)

    def label(self, domain: str) -> str:
        """Its name, with a star where a note says that agreement there says little."""
        return domain + "*" * (domain in self.collapsed)

    def label_with_count(self, domain: str) -> str:
        """The label and how much of it was shown."""
        part = self.shipped.domains[domain]
        noun = "view" if part.num_pictures < part.num_images else UNITS[self.metric]
        return f"{self.label(domain)}, {counted(part.num_images, noun)}"

    def reliability(self, rung: MeasuredRung, scaled: bool = False) -> Reliability | None:
        """Bins of all domains that count; None where no temperature was fitted to scale by."""
        parts = [rung.domains[domain] for domain in self.mean_over]
        return pooled([p.reliability_scaled if scaled else p.reliability for p in parts])

    def temperature_effect(self) -> str:
        """Say what the bundle's temperature did on labelled pictures; empty where it is 1.

        Surrogates tell nothing of it: it was fitted on them, and they are held against the
        teacher's answers where the fit asked for the class.
        """
        before, after = self.reliability(self.shipped), self.reliability(self.shipped, scaled=True)
        if self.metric != "top1" or not self.confidence or self.confidence.temperature == 1:
            return ""
        if before is None or after is None or before.ece is None or after.ece is None:
            return ""
        did = "worse" if after.ece > before.ece else "no worse"
        return (
            f"on these pictures temperature made the confidences {did}: calibration error "
            f"{error_text(before.ece, after.ece)}"
        )

    def caveats(self) -> list[str]:
        """What must be read with the figures: on domains, graphs, and times of rungs."""
        times: list[str] = []
        for rung in self.rungs:
            times += [f"{rung.name}: {caveat}" for caveat in rung.latency_caveats]
            times += [f"{rung.name} as an FP32 graph: {c}" for c in rung.onnx_latency_caveats]
        return [*self.domain_notes(), *self.notes, *times]

    @property
    def is_heldout_apart(self) -> bool:
        """Whether held-out surrogates are shown whole, and no mean or worst domain counts them."""
        return HELDOUT_DOMAIN in self.shipped.domains and HELDOUT_DOMAIN not in self.mean_over

    def domain_notes(self) -> list[str]:
        """Say which domain no worst one is chosen from, and where agreement says little."""
        if not self.is_heldout_apart:
            return self.collapse_notes()
        why = "no label is known there"
        if self.metric == "agreement":
            why = "each image is shown once there, and counts by its views in the other domains"
        left_out = f"{HELDOUT_DOMAIN}: mean, worst domain and gate leave them out, for {why}"
        return [left_out, *self.collapse_notes()]

    def collapse_notes(self) -> list[str]:
        """Say of each domain with a star why agreement there says little."""
        notes = []
        for domain, found in self.collapsed.items():
            left_out = "" if domain in self.mean_over else " and the mean leaves it out"
            notes.append(
                f"{domain}*: the teacher calls {100 * found.share:.0f}% of these images "
                f"{found.answer}, so agreement says little{left_out}; the gate counts a loss there"
            )
        return notes

    def to_json(self) -> dict[str, Any]:
        """Make the document of `--json`, check.json, validation.json and evaluation.json."""
        document = to_json(self)
        if self.gate:
            document["gate"]["sentence"] = self.gate.sentence()
        return document

    @classmethod
    def from_json(cls, document: object, where: Path | str) -> Ladder:
        """Read what `to_json` made.

        Raises:
            ArtifactError: it is damaged, or newer than this version reads.
        """
        ladder = from_json(cls, document, where)
        what = ""
        if ladder.schema > SCHEMA or not ladder.rungs or not ladder.mean_over:
            what = "ladder is empty or of a newer version"
        elif not ladder.is_whole:
            what = "ladder lacks the teacher, or rungs differ in their domains"
        if what:
            raise ArtifactError(what, where=str(where), hint="measure it again")
        return ladder
