"""When INT8 misses the gate: layers back to float, then a short fine-tune; both are reported.

What is kept is chosen on surrogates in other views and corruptions than those of the proof, and
never on the user's pictures or their labels; only the choice is proven, once.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfkd_edge.artifacts import ModelFile, StudentArtifact
from dfkd_edge.conversion.calibration_source import CalibrationSet
from dfkd_edge.conversion.conversion import Conversion, Graphs
from dfkd_edge.deployment.finetune import finetune_quantized
from dfkd_edge.deployment.float_layers import RepairReport, rank_sensitivities, repair
from dfkd_edge.files import atomic_write
from dfkd_edge.networks.students import load_student, student_tensors
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.plugins import load_exporter
from dfkd_edge.results.gate import Gate
from dfkd_edge.results.ladder import STUDENT, TEACHER
from dfkd_edge.runs.context import StageContext
from dfkd_edge.runs.finished import FinishedRun
from dfkd_edge.runtime.preprocess import resized_images
from dfkd_edge.validation.evaluation_images import CHOOSING_ROUND, EvaluationSet, surrogate_suite
from dfkd_edge.validation.gate import judge
from dfkd_edge.validation.ladder import Predictions, Rung, climb
from dfkd_edge.validation.rungs import Proof, open_runner

NUM_RANKING_IMAGES = 96
"""A layer's harm shows in the class probabilities of few images (ours)."""
CHOOSING_SIZE = 0.5
"""Images to choose by, as a share of those of the proof (ours)."""


class Unseen:
    """Progress that another bar already shows."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Say nothing."""


@dataclass(frozen=True, slots=True)
class Rescued:
    """The best INT8 graph that was found."""

    graphs: Graphs
    """The FP32 graph is the student's, whatever INT8 was made of."""
    predictions: Predictions
    """On the images of the proof."""
    document: dict[str, Any]
    """What repair and fine-tune did, for the manifest."""


@dataclass(frozen=True, slots=True)
class Choosing:
    """What graphs are chosen by."""

    suite: EvaluationSet
    known: Predictions
    """Of teacher, student and the graph that failed."""


@dataclass(frozen=True, slots=True)
class Rescuer:
    """Everything that a rescue needs to make graphs and to have them judged."""

    run: FinishedRun
    conversion: Conversion
    images: CalibrationSet
    teacher: Teacher
    context: StageContext
    proof: Proof
    """Of the graph that failed; the predictions of all other rungs are reused."""

    def rescue(self, graphs: Graphs) -> Rescued:
        """Repair, and fine-tune if that is not enough.

        Returns:
            The graph that loses least on the images for choosing, of few layers in float.
        """
        reporter = self.context.reporter
        verdict = judge(self.proof.predictions, self.conversion.config.max_drop)
        reporter.note(f"  INT8 misses the gate: {verdict.sentence()}")
        choosing = self._choosing()
        before = judge(choosing.known, self.conversion.config.max_drop)
        report, repaired = self._repair(graphs, choosing, before.drop)
        document: dict[str, Any] = {
            "chosen_on": f"other views and corruptions: {choosing.suite.description}",
            "repair": report.document(),
            "finetune": None,
        }
        reporter.note(f"  {report.sentence()}")
        candidates = [(report.drop_after, repaired)]
        if not report.passed:
            tuned, document["finetune"] = self._finetune(graphs.fp32, report)
            candidates += [(self._judged(t.final, choosing).drop, t) for t in tuned]
        best = min(candidates, key=lambda entry: entry[0])[1]
        self.conversion.lint(best.final)
        return Rescued(best, self._proven(best), document)

    def _choosing(self) -> Choosing:
        """Show the first rungs what graphs will be chosen by; it is chosen without labels."""
        suite = surrogate_suite(
            self.run.surrogates, self.context.seed, CHOOSING_ROUND, CHOOSING_SIZE
        )
        rungs = [
            rung for rung in self.proof.rungs if rung.name in (TEACHER, STUDENT, self._last.name)
        ]
        with self.context.reporter.stage("images to choose by", suite.num_images) as progress:
            return Choosing(suite, climb(rungs, suite, self.images.digests, progress))

    @property
    def _last(self) -> Rung:
        return self.proof.rungs[-1]

    def _repair(
        self, graphs: Graphs, choosing: Choosing, drop_before: float
    ) -> tuple[RepairReport, Graphs]:
        assert graphs.calibration is not None
        calibration, numbers = graphs.calibration, itertools.count()
        nodes = load_exporter("int8").quantizable_nodes(graphs.fp32, self.conversion.target)

        def quantize(float_nodes: frozenset[str]) -> ModelFile:
            name = f"repair-{next(numbers) % 2}.int8.onnx"
            return self.conversion.quantize(graphs.fp32, calibration, name, float_nodes)

        image_NHWC = self._ranking_images()
        threads = self.conversion.config.num_threads
        ranked = rank_sensitivities(
            nodes,
            quantize,
            lambda model: open_runner(model, threads),
            image_NHWC,
            open_runner(graphs.fp32, threads)(image_NHWC).logits,
            self.context.reporter,
        )
        report = repair(
            ranked,
            len(nodes),
            lambda float_nodes: self._judged(quantize(float_nodes), choosing),
            drop_before,
            self.context.reporter,
        )
        kept = frozenset(report.float_nodes)
        final = self.conversion.quantize(graphs.fp32, calibration, "repaired.int8.onnx", kept)
        return report, Graphs(graphs.fp32, final, calibration)

    def _ranking_images(self) -> NDArray[np.uint8]:
        """Draw surrogate images that were not held out: proof and choice use those."""
        rows = np.flatnonzero(~self.run.surrogates.is_heldout)
        chosen = np.random.default_rng(self.context.seed).permutation(rows)[:NUM_RANKING_IMAGES]
        side_px = self.run.student.settings.image_size_px
        return resized_images(self.run.surrogates.images[chosen], side_px)

    def _judged(self, model: ModelFile, choosing: Choosing) -> Gate:
        """Judge one graph by the images for choosing."""
        seen = climb([self._rung(model)], choosing.suite, frozenset(), Unseen())
        known = choosing.known.with_rung(self._last.name, seen)
        return judge(known, self.conversion.config.max_drop)

    def _proven(self, graphs: Graphs) -> Predictions:
        """Run the graph that was chosen on the images of the proof; all other rungs are known."""
        evaluation = self.proof.evaluation
        with self.context.reporter.stage("proving the choice", evaluation.num_images) as progress:
            seen = climb([self._rung(graphs.final)], evaluation, frozenset(), progress)
        return self.proof.predictions.with_rung(self._last.name, seen)

    def _rung(self, model: ModelFile) -> Rung:
        runner = open_runner(model, self.conversion.config.num_threads)
        return Rung(self._last.name, runner, self._last.side_px)

    def _finetune(
        self, student_fp32: ModelFile, report: RepairReport
    ) -> tuple[list[Graphs], dict[str, Any]]:
        """Fine-tune and convert anew: all in INT8, and with the repaired layers in float."""
        spec = self.conversion.target.quantization
        assert spec is not None
        student = load_student(self.run.student).to(self.context.device)
        tuning = finetune_quantized(
            student,
            self.teacher,
            self.run.surrogates,
            spec,
            self.conversion.config.percentile,
            self.context,
        )
        self.context.reporter.note(
            f"  fine-tune: {tuning.num_steps} steps, loss {tuning.first_loss:.3f} -> "
            f"{tuning.last_loss:.3f}"
        )
        artifact = self._saved(student_tensors(student.cpu()))
        fp32 = self.conversion.to_onnx(artifact, "tuned.fp32.onnx")
        calibration = self.conversion.calibrate(fp32, self.images)
        choices = {"tuned": frozenset[str](), "tuned-repaired": frozenset(report.float_nodes)}
        graphs = []
        for name, float_nodes in choices.items():
            model = self.conversion.quantize(fp32, calibration, f"{name}.int8.onnx", float_nodes)
            notes = {**model.notes, "finetuned": True}
            final = ModelFile(model.path, model.format, model.precision, notes)
            graphs.append(Graphs(student_fp32, final, calibration))
        return graphs, tuning.document()

    def _saved(self, tensors: bytes) -> StudentArtifact:
        folder: Path = self.conversion.folder / "tuned"
        artifact = StudentArtifact(folder, self.run.student.settings)
        atomic_write(artifact.weights, tensors)
        artifact.save_settings()
        return artifact
