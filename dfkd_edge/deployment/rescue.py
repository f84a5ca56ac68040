"""When INT8 misses the gate: layers back to float, then a short fine-tune; both are reported."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape

from dfkd_edge.artifacts import ModelFile, StudentArtifact
from dfkd_edge.deployment.calibration_source import CalibrationSet
from dfkd_edge.deployment.conversion import Conversion, Graphs
from dfkd_edge.deployment.precision_repair import RepairReport, rank_sensitivities, repair
from dfkd_edge.deployment.proof import Proof, open_runner
from dfkd_edge.distillation.qat import finetune_quantized
from dfkd_edge.finished_run import FinishedRun
from dfkd_edge.interfaces import StageContext
from dfkd_edge.plugins import load_exporter
from dfkd_edge.run_dir import atomic_write
from dfkd_edge.students import load_student, student_tensors
from dfkd_edge.teacher import Teacher
from dfkd_edge.validation.evaluation_images import resized
from dfkd_edge.validation.gate import Verdict, judge
from dfkd_edge.validation.ladder import Predictions, Rung, climb

NUM_RANKING_IMAGES = 96
"""A layer's harm shows in the class probabilities of few images (ours)."""


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
    document: dict[str, Any]
    """What repair and fine-tune did, for the manifest."""


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
            The graph that passes the gate, or else the one that loses least.
        """
        reporter = self.context.reporter
        before = judge(self.proof.predictions, self.conversion.config.max_drop)
        reporter.note(f"  INT8 misses the gate: {escape(before.sentence())}")
        report, repaired = self._repair(graphs, before.drop)
        document: dict[str, Any] = {"repair": report.document(), "finetune": None}
        count = len(report.float_nodes)
        reporter.note(
            f"  repair: {count} of {report.num_quantizable} layers back to float, drop "
            f"{report.drop_before * 100:.2f} -> {report.drop_after * 100:.2f} points"
        )
        candidates = [repaired]
        if not report.passed:
            tuned, document["finetune"] = self._finetune(graphs.fp32, report)
            candidates += tuned
        judged = [(*self._judged(candidate.final), candidate) for candidate in candidates]
        predictions, verdict, best = min(judged, key=lambda entry: entry[1].drop)
        if not verdict.passed and verdict.drop >= before.drop:
            predictions, best = self.proof.predictions, graphs
        self.conversion.lint(best.final)
        return Rescued(best, predictions, document)

    def _repair(self, graphs: Graphs, drop_before: float) -> tuple[RepairReport, Graphs]:
        numbers = itertools.count()
        nodes = load_exporter("int8").quantizable_nodes(graphs.fp32, self.conversion.target)

        def quantize(float_nodes: frozenset[str]) -> ModelFile:
            name = f"repair-{next(numbers) % 2}.int8.onnx"
            return self.conversion.quantize(graphs.fp32, graphs.calibration, name, float_nodes)

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
            lambda float_nodes: self._judged(quantize(float_nodes))[1],
            drop_before,
            self.context.reporter,
        )
        kept = frozenset(report.float_nodes)
        final = self.conversion.quantize(
            graphs.fp32, graphs.calibration, "repaired.int8.onnx", kept
        )
        return report, Graphs(graphs.fp32, final, graphs.calibration)

    def _ranking_images(self) -> NDArray[np.uint8]:
        """Draw surrogate images that were not held out: the gate measures on those."""
        rows = np.flatnonzero(~self.run.surrogates.is_heldout)
        chosen = np.random.default_rng(self.context.seed).permutation(rows)[:NUM_RANKING_IMAGES]
        side_px = int(self.run.student.settings["image_size_px"])
        return resized(self.run.surrogates.images[chosen], side_px)

    def _judged(self, model: ModelFile) -> tuple[Predictions, Verdict]:
        """Run one graph on the images of the proof; all other rungs are known."""
        last = self.proof.rungs[-1]
        rung = Rung(last.name, open_runner(model, self.conversion.config.num_threads), last.side_px)
        seen = climb([rung], self.proof.evaluation, frozenset(), Unseen())
        predictions = self.proof.predictions.with_rung(last.name, seen)
        return predictions, judge(predictions, self.conversion.config.max_drop)

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
        artifact = StudentArtifact(folder, dict(self.run.student.settings))
        atomic_write(artifact.weights, tensors)
        artifact.save_settings()
        return artifact
