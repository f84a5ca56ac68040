"""When INT8 misses the gate: layers back to float, then a short fine-tune; both are reported.

What is kept is chosen on surrogates in other views and corruptions than those of the proof, and
never on the user's pictures or their labels; only the choice is proven, once.
"""

import dataclasses
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dfkd_edge.artifacts import Bytes, Floats, ModelFile, StudentArtifact
from dfkd_edge.conversion.conversion import Graphs
from dfkd_edge.deployment.finetune import FinetuneReport, finetune_quantized
from dfkd_edge.deployment.float_layers import RepairReport, rank_sensitivities, restore_layers
from dfkd_edge.deployment.material import Material, Proven
from dfkd_edge.files import atomic_write
from dfkd_edge.networks.students import load_student, student_tensors
from dfkd_edge.plugins import load_exporter
from dfkd_edge.results.gate import Gate
from dfkd_edge.results.ladder import STUDENT, TEACHER
from dfkd_edge.runtime.preprocess import resized_images
from dfkd_edge.validation.evaluation_images import CHOOSING_ROUND, EvaluationSet, surrogate_suite
from dfkd_edge.validation.ladder import Rung, climb, judge
from dfkd_edge.validation.predictions import Predictions
from dfkd_edge.validation.rungs import Proof, open_runner

NUM_RANKING_IMAGES = 96  # A layer's harm shows in the class probabilities of few images (ours)
CHOOSING_SIZE = 0.5  # Images to choose by, as a share of those of the proof (ours)
INT8 = "onnx-int8"


class Unseen:
    """Progress that another bar already shows."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Show nothing."""


@dataclass(frozen=True, slots=True)
class Chooser:
    """Judges INT8 graphs by images that the proof does not show; agreement needs no labels."""

    suite: EvaluationSet
    known: Predictions  # Of teacher, student and the graph that failed, on these images
    material: Material

    def judge(self, int8: ModelFile) -> Gate:
        """Judge one graph in the place of the one that failed."""
        runner = open_runner(int8, self.material.config.num_threads)
        rung = Rung(INT8, runner, self.material.student.image_size_px)
        seen = climb([rung], self.suite, frozenset(), Unseen())  # leakage was checked for `known`
        return judge(self.known.with_rung(INT8, seen), self.material.config.max_drop)


def repair(failed: Proven, material: Material) -> Proven:
    """Put layers back to float, and fine-tune if that is not enough.

    What the failed graphs' proof says of all other rungs is reused.

    Returns:
        The INT8 graph that loses least on the images for choosing, of few layers in float, proven;
        its FP32 graph is the student's, whatever INT8 was made of.
    """
    reporter, max_drop = material.context.reporter, material.config.max_drop
    reporter.note(f"  INT8 misses the gate: {judge(failed.proof.predictions, max_drop).sentence()}")
    chooser = make_chooser(failed.proof, material)
    report, repaired = _put_back(failed.graphs, chooser, material)
    reporter.note(f"  {report.sentence()}")
    candidates, tuning = [(report.drop_after, repaired)], None
    if not report.passed:
        tuning, tuned = _finetune(failed.graphs.fp32, report, material)
        candidates += [(chooser.judge(graphs.final).drop, graphs) for graphs in tuned]
    best = min(candidates, key=lambda candidate: candidate[0])[1]  # a tie: the repair
    material.conversion.lint(best.final)
    document: dict[str, Any] = {
        "chosen_on": f"other views and corruptions: {chooser.suite.description}",
        "repair": asdict(report),
        "finetune": asdict(tuning) if tuning else None,
    }
    return Proven(best, _prove_again(failed.proof, best, material), document)


def make_chooser(proof: Proof, material: Material) -> Chooser:
    """Run teacher, student and the failed graph on the images that candidates are chosen by."""
    suite = surrogate_suite(
        material.run.surrogates, material.context.seed, CHOOSING_ROUND, CHOOSING_SIZE
    )
    rungs = [rung for rung in proof.rungs if rung.name in (TEACHER, STUDENT, INT8)]
    with material.context.reporter.stage("images to choose by", suite.num_images) as progress:
        return Chooser(suite, climb(rungs, suite, material.calibrated, progress), material)


def _put_back(graphs: Graphs, chooser: Chooser, material: Material) -> tuple[RepairReport, Graphs]:
    """Put the fewest layers that INT8 harms most back to float."""
    conversion, reporter = material.conversion, material.context.reporter
    calibration = graphs.calibration
    assert calibration is not None
    nodes = load_exporter("int8").quantizable_nodes(graphs.fp32, material.target)

    def quantize(float_nodes: frozenset[str]) -> ModelFile:
        return conversion.quantize(graphs.fp32, calibration, "tried.int8.onnx", float_nodes)

    def logits(model: ModelFile) -> Floats:
        return open_runner(model, material.config.num_threads)(image_NHWC).logits

    image_NHWC = _ranking_images(material)
    ranked = rank_sensitivities(
        nodes, lambda kept: logits(quantize(kept)), logits(graphs.fp32), reporter
    )
    before = judge(chooser.known, material.config.max_drop).drop
    report = restore_layers(
        ranked, len(nodes), lambda kept: chooser.judge(quantize(kept)), before, reporter
    )
    kept = frozenset(report.float_nodes)
    final = conversion.quantize(graphs.fp32, calibration, "repaired.int8.onnx", kept)
    return report, dataclasses.replace(graphs, final=final)


def _ranking_images(material: Material) -> Bytes:
    """Draw surrogate images [N, S, S, 3] that were not held out: proof and choice use those."""
    surrogates = material.run.surrogates
    rows = np.flatnonzero(~surrogates.is_heldout)
    chosen = np.random.default_rng(material.context.seed).permutation(rows)[:NUM_RANKING_IMAGES]
    return resized_images(surrogates.images.rows(chosen), material.student.image_size_px)


def _finetune(
    student_fp32: ModelFile, report: RepairReport, material: Material
) -> tuple[FinetuneReport, list[Graphs]]:
    """Fine-tune and convert anew: all in INT8, and with the repaired layers in float."""
    conversion, context, images = material.conversion, material.context, material.calibration
    spec = material.target.quantization
    assert spec is not None
    assert images is not None
    student = load_student(material.run.student).to(context.device)
    run, percentile = material.run, material.config.percentile
    tuning = finetune_quantized(
        student, material.teacher, run.surrogates, spec, percentile, context
    )
    context.reporter.note(
        f"  fine-tune: {tuning.num_steps} steps, loss {tuning.first_loss:.3f} -> "
        f"{tuning.last_loss:.3f}"
    )
    artifact = StudentArtifact(conversion.folder / "tuned", material.run.student.settings)
    atomic_write(artifact.weights, student_tensors(student.cpu()))
    artifact.save_settings()
    fp32 = conversion.to_onnx(artifact, "tuned.fp32.onnx")
    calibration = conversion.calibrate(fp32, images)
    tuned = []
    for name, kept in (("tuned", ()), ("tuned-repaired", report.float_nodes)):
        model = conversion.quantize(fp32, calibration, f"{name}.int8.onnx", frozenset(kept))
        final = dataclasses.replace(model, notes={**model.notes, "finetuned": True})
        tuned.append(Graphs(student_fp32, final, calibration))
    return tuning, tuned


def _prove_again(proof: Proof, graphs: Graphs, material: Material) -> Proof:
    """Run what was chosen on the images of the proof; all other rungs are known."""
    rungs, predictions = material.last_rungs(graphs), proof.predictions
    names = {rung.name for rung in rungs}
    reporter, num_images = material.context.reporter, proof.evaluation.num_images
    with reporter.stage("proving the choice", num_images) as progress:
        seen = climb(rungs, proof.evaluation, frozenset(), progress)  # checked in the first proof
    for name in names:
        predictions = predictions.with_rung(name, seen)
    known = tuple(rung for rung in proof.rungs if rung.name not in names)
    return Proof((*known, *rungs), predictions, proof.evaluation)
