"""The export stage: a finished run -> a bundle whose accuracy was measured after every conversion.

Shape suffixes: G golden images, S side, C = 3 channels, D embedding width, K classes.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dfkd_edge.artifacts import ModelFile, SurrogateSet, load_tensors
from dfkd_edge.bundles.bundle import BundleContents, write_bundle
from dfkd_edge.bundles.model_card import licenses_text, model_card
from dfkd_edge.bundles.opening import open_bundle
from dfkd_edge.bundles.parts import GoldenSet
from dfkd_edge.bundles.recipe import build_recipe, build_script
from dfkd_edge.bundles.replacement import other_bundle
from dfkd_edge.config.settings import ExportConfig
from dfkd_edge.conversion.calibration_source import CalibrationSet, calibration_set
from dfkd_edge.conversion.conversion import Conversion, Graphs
from dfkd_edge.conversion.precision import chosen_precision
from dfkd_edge.deployment.rescue import Rescuer
from dfkd_edge.errors import ConfigError, DfkdEdgeError
from dfkd_edge.files import content_hash, file_hash
from dfkd_edge.networks.students import Student, load_student
from dfkd_edge.networks.teacher import Teacher, load_teacher
from dfkd_edge.pictures.real import pictures_below
from dfkd_edge.preflight import ExportPlan
from dfkd_edge.results.codec import to_json
from dfkd_edge.results.confidence import FittedConfidence
from dfkd_edge.runs.context import StageContext
from dfkd_edge.runs.finished import FinishedRun
from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.runtime.preprocess import resized_images
from dfkd_edge.target_profiles.profile import Precision, TargetProfile
from dfkd_edge.validation.confidence import fit_confidence
from dfkd_edge.validation.evaluation_images import EvaluationSet, surrogate_suite
from dfkd_edge.validation.fp16_rung import as_in_bundle, ladder_notes_of
from dfkd_edge.validation.gate import judge
from dfkd_edge.validation.rungs import Proof, build_rungs, evaluation_set, model_rung, prove
from dfkd_edge.version import __version__

NUM_GOLDEN = 32


def export_student(run: FinishedRun, plan: ExportPlan, work: Path, context: StageContext) -> Bundle:
    """Convert, prove, repair if need be, and bundle; a bundle of equal inputs is opened instead.

    Args:
        run: with its student and surrogate images.
        plan: what is wanted, and where it goes.
        work: graphs are made here; nothing of it is kept.
        context: of the run.

    Returns:
        The bundle; its status is `failed` when INT8 lost more than `config.max_drop`.

    Raises:
        ConfigError: the target cannot do what is asked, or pictures are missing or shared.
        ConversionError: an exporter, the lint or TensorRT's parser refuses a graph.
    """
    begun = time.monotonic()
    target, config = plan.target, plan.config.export
    precision = chosen_precision(target, config)
    key = export_key(run, target, config, plan.data, context.seed)
    finished = _finished_bundle(plan, key)
    if finished:
        context.reporter.note(f"  already exported with these settings: {plan.folder}")
        return finished
    refuse_shared_files(config.calibration_data, plan.data)
    with context.reporter.stage("loading teacher and student", 1) as progress:
        networks = Networks(
            load_teacher(run.config.teacher, run.class_names, context.device),
            load_student(run.student),
        )
        progress.advance()
    evaluation = evaluation_set(
        plan.data,
        run.class_names.names,
        (networks.teacher.image_size_px, networks.student.image_size_px),
        run.surrogates,
        context,
    )
    images = calibration_set(run, target, config, context) if precision == "int8" else None
    conversion = Conversion(target, config, context.reporter, work)
    proven = _convert_and_prove(run, conversion, networks, images, (evaluation, context))
    shipped = _shipped(proven.graphs, target)
    oracle = conversion.consult_oracle(shipped)
    confidence = _confidence(run, proven.proof, context)
    provenance = {
        **_provenance(run, config, context.seed, key),
        "folder": str(plan.folder.resolve()),
        "data": plan.data,
        "lint_warnings": [dataclasses.asdict(finding) for finding in conversion.warnings],
        "oracle": [{"model": name, **dataclasses.asdict(r)} for name, r in oracle.items()],
        "rescue": proven.rescue,
        "seconds": round(time.monotonic() - begun, 1),
    }
    contents = _contents(run, conversion, proven, images, (confidence, provenance))
    with context.reporter.stage("writing the bundle", 1) as progress:
        bundle = write_bundle(plan.folder, contents)
        progress.advance()
    return bundle


@dataclass(frozen=True, slots=True)
class Networks:
    """The rungs that are there before any conversion."""

    teacher: Teacher
    student: Student


@dataclass(frozen=True, slots=True)
class Proven:
    """Graphs and what was measured on them."""

    graphs: Graphs
    proof: Proof
    rescue: dict[str, Any] | None
    """What repair and fine-tune did; None when the gate passed at once."""


def _convert_and_prove(
    run: FinishedRun,
    conversion: Conversion,
    networks: Networks,
    images: CalibrationSet | None,
    surroundings: tuple[EvaluationSet, StageContext],
) -> Proven:
    evaluation, context = surroundings
    config, backend = conversion.config, conversion.target.backend
    graphs = conversion.convert(run.student, chosen_precision(conversion.target, config), images)
    with context.reporter.stage("opening every rung", 1) as progress:
        rungs = build_rungs(
            networks.teacher, networks.student, graphs.models, config.num_threads, backend
        )
        held = [model.precision for model in _shipped(graphs, conversion.target)]
        rungs = as_in_bundle(rungs, held)
        progress.advance()
    calibrated = images.digests if images else frozenset()
    proof = prove(rungs, evaluation, calibrated, config.max_drop, context.reporter)
    if images is None or not config.repair or judge(proof.predictions, config.max_drop).passed:
        return Proven(graphs, proof, None)
    rescued = Rescuer(run, conversion, images, networks.teacher, context, proof).rescue(graphs)
    last = model_rung(rescued.graphs.final, rungs[-1].side_px, config.num_threads, backend)
    proof = Proof((*rungs[:-1], last), rescued.predictions, proof.evaluation)
    return Proven(rescued.graphs, proof, rescued.document)


def _contents(
    run: FinishedRun,
    conversion: Conversion,
    proven: Proven,
    images: CalibrationSet | None,
    documents: tuple[FittedConfidence, dict[str, Any]],
) -> BundleContents:
    target, config, names = conversion.target, conversion.config, run.class_names.names
    confidence, provenance = documents
    precision = chosen_precision(target, config)
    models = {model.precision: model for model in _shipped(proven.graphs, target)}
    notes = ladder_notes_of(precision, models)
    ladder = proven.proof.ladder(names, config.max_drop, confidence, notes)
    gate = ladder.gate
    assert gate is not None  # a proof is judged
    side_px = run.student.settings.image_size_px
    return BundleContents(
        target=target,
        precision=precision,
        models=models,
        class_names=names,
        student=run.student,
        text_head=load_tensors(run.student.weights)["head_KD"].T,
        golden=golden_set(run.surrogates, proven.proof, side_px),
        batch=config.batch,
        calibration=_calibration_document(proven.graphs, images),
        validation=ladder.to_json(),
        recipe=build_recipe(target, precision, config.batch, side_px),
        build_script=build_script(target, precision, config.batch, side_px),
        card=model_card(run.student.settings, target, precision, ladder),
        licenses=licenses_text(run.student.settings),
        confidence=to_json(confidence),
        status="passed" if gate.passed else "failed",
        provenance=provenance,
    )


def _confidence(run: FinishedRun, proof: Proof, context: StageContext) -> FittedConfidence:
    """Fit temperature and reject threshold of the model that ships, on surrogates alone."""
    last = proof.rungs[-1]
    with context.reporter.stage("fitting temperature and reject threshold", 1) as progress:
        made = proof.evaluation.metric == "agreement"
        suite = proof.evaluation if made else surrogate_suite(run.surrogates, context.seed)
        fitted = fit_confidence(last.runner, last.side_px, suite)
        progress.advance()
    if not fitted.is_kept:
        context.reporter.note(f"  {fitted.sentence()}")
    return fitted


def export_key(
    run: FinishedRun, target: TargetProfile, config: ExportConfig, data: str, seed: int
) -> str:
    """Hash what a bundle's content depends on, the version of this tool among it."""
    weights = file_hash(run.student.weights)
    facts = dataclasses.replace(target, facts={})
    pictures = [_folder_stamp(folder) for folder in (config.calibration_data, data)]
    made_by = ("export", __version__, seed)
    return content_hash(*made_by, weights, run.student.settings, facts, config, data, pictures)


def _folder_stamp(folder: str) -> list[tuple[str, int, int]]:
    """Name, size and time of change of every file below: another picture, another stamp."""
    root = Path(folder)
    found = [(p, p.stat()) for p in sorted(root.rglob("*")) if p.is_file()] if folder else []
    return [(str(p.relative_to(root)), stat.st_size, stat.st_mtime_ns) for p, stat in found]


def _finished_bundle(plan: ExportPlan, key: str) -> Bundle | None:
    """The bundle that is already there, if it is of this export."""
    try:
        bundle = open_bundle(plan.folder)
    except DfkdEdgeError:
        return None  # nothing there, or damaged: write it anew; write_bundle spares foreign files
    if bundle.manifest.provenance.get("key") == key:
        return bundle
    if not plan.exist_ok:
        why = "its settings or its target are others, or pictures of --data or --calib-data changed"
        raise other_bundle(plan.folder, why)
    return None


def refuse_shared_files(calibration_data: str, data: str) -> None:
    """Stop early when the same files would calibrate and measure.

    Raises:
        ConfigError: the folders share a picture.
    """
    if not calibration_data:
        return
    files = {path.resolve() for path in pictures_below(Path(calibration_data))}
    root = Path(data)
    if data and root.is_dir() and any(p.resolve() in files for p in root.rglob("*")):
        raise ConfigError(
            "calibration and evaluation share pictures, the measured accuracy would flatter",
            where=f"--calib-data {calibration_data} --data {data}",
            hint="keep them apart",
        )


def _shipped(graphs: Graphs, target: TargetProfile) -> tuple[ModelFile, ...]:
    """Graphs that go into the bundle: where typing is weak, FP16 is a flag of the builder."""
    return tuple(
        model for model in graphs.models if model.precision != "fp16" or target.typing == "strong"
    )


def golden_set(surrogates: SurrogateSet, proof: Proof, side_px: int) -> GoldenSet:
    """Synthesized images, held-out ones first, classes in turn, with the logits of every rung.

    Images of drawings, which carry licences of their own, are not passed on.
    """
    rows = np.flatnonzero(surrogates.drawing_index < 0)
    rows = rows[np.argsort(~surrogates.is_heldout[rows], kind="stable")]
    labels = surrogates.class_index[rows]
    turn = np.array([(labels[:i] == label).sum() for i, label in enumerate(labels)])
    chosen = rows[np.lexsort((labels, turn))][:NUM_GOLDEN]
    image_GSSC = resized_images(surrogates.images[chosen], side_px)
    by_name = {rung.name: rung for rung in proof.rungs}
    teacher = by_name["teacher"]
    native = resized_images(surrogates.images[chosen], teacher.side_px)
    precisions: dict[Precision, Any] = {}
    for precision in ("fp16", "int8"):
        if f"onnx-{precision}" in by_name:
            runner = by_name[f"onnx-{precision}"].runner
            precisions[precision] = runner(image_GSSC).logits
    return GoldenSet(
        images=image_GSSC,
        teacher_logits=teacher.runner(native).logits,
        student_logits=by_name["onnx-fp32"].runner(image_GSSC).logits,
        precision_logits=precisions,
    )


def _calibration_document(graphs: Graphs, images: CalibrationSet | None) -> dict[str, Any] | None:
    found = graphs.calibration
    if images is None or found is None:
        return None
    return {
        "method": found.method,
        "num_images": found.num_images,
        "sha256": found.sha256,
        "num_tensors": len(found.ranges),
        "half_difference": round(found.half_difference, 5),
        "growth": {count: round(change, 5) for count, change in found.growth.items()},
        "images": images.description,
        "ranges": {name: list(ends) for name, ends in found.ranges.items()},
        "image_digests": sorted(images.digests),
    }


def _provenance(run: FinishedRun, config: ExportConfig, seed: int, key: str) -> dict[str, Any]:
    return {
        "key": key,
        "run": str(run.path),
        "student_sha256": file_hash(run.student.weights),
        "teacher": dataclasses.asdict(run.config.teacher),
        "prompts": list(run.class_names.prompts),
        "config": dataclasses.asdict(config),
        "seed": seed,
    }
