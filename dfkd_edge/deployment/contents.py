"""What goes into a bundle besides its graphs: golden images, ladder, confidence, provenance.

Shape suffixes: G golden images, S side, C = 3 channels, K classes.
"""

from dataclasses import asdict
from typing import Any

import numpy as np

from dfkd_edge.artifacts import Floats, SurrogateSet, load_tensors
from dfkd_edge.bundles.bundle import BundleContents
from dfkd_edge.bundles.model_card import licenses_text, model_card
from dfkd_edge.bundles.parts import GoldenSet
from dfkd_edge.bundles.recipe import EngineBuild, build_recipe, build_script, engine_content
from dfkd_edge.bundles.sbom import bill_of_materials
from dfkd_edge.conversion.calibration_source import CalibrationSet
from dfkd_edge.deployment.material import Material, Proven
from dfkd_edge.files import file_hash
from dfkd_edge.interfaces import Calibration
from dfkd_edge.networks.licences import licences_of
from dfkd_edge.results.codec import to_json
from dfkd_edge.results.confidence import FittedConfidence
from dfkd_edge.results.ladder import TEACHER
from dfkd_edge.runs.key import teacher_content
from dfkd_edge.runtime.preprocess import resized_images
from dfkd_edge.target_profiles.profile import Precision
from dfkd_edge.validation.confidence import fit_confidence
from dfkd_edge.validation.evaluation_images import surrogate_suite
from dfkd_edge.validation.rungs import ENGINE, Proof, ladder_notes_of

NUM_GOLDEN = 32


def fitted_confidence(proof: Proof, material: Material) -> FittedConfidence:
    """Fit temperature and reject threshold of the graph that ships, on surrogates alone."""
    reporter = material.context.reporter
    # not of an engine: the bundle is the same on a host that can build one
    last = next(rung for rung in reversed(proof.rungs) if rung.name != ENGINE)
    with reporter.stage("fitting temperature and reject threshold", 1) as progress:
        is_made = proof.evaluation.metric == "agreement"
        suite = (
            proof.evaluation
            if is_made
            else surrogate_suite(material.run.surrogates, material.context.seed)
        )
        fitted = fit_confidence(last.runner, last.side_px, suite)
        progress.advance()
    if not fitted.is_kept:
        reporter.note(f"  {fitted.sentence()}")
    return fitted


def bundle_contents(
    proven: Proven, material: Material, confidence: FittedConfidence, origin: dict[str, Any]
) -> BundleContents:
    """Gather all files of a bundle but those for runtimes."""
    run, target, config = material.run, material.target, material.config
    settings, names, precision = run.student.settings, run.class_names.names, material.precision
    models = {model.precision: model for model in material.shipped(proven.graphs)}
    notes = (*proven.warnings, *ladder_notes_of(precision, models))
    sources = licences_of(run.config)
    ladder = proven.proof.ladder(names, config.max_drop, confidence, notes)
    built_from = models.get(precision, models["fp32"]).path
    build = EngineBuild(
        target=target,
        precision=precision,
        batch=config.batch,
        image_size_px=settings.image_size_px,
        content=engine_content(built_from, precision, config.batch, target),
    )
    return BundleContents(
        target=target,
        precision=precision,
        models=models,
        class_names=names,
        student=run.student,
        text_head=load_tensors(run.student.weights)["head_KD"].T,  # [D, K], as the graph multiplies
        golden=golden_set(run.surrogates, proven.proof, settings.image_size_px),
        batch=config.batch,
        calibration=_calibration_document(proven.graphs.calibration, material.calibration),
        validation=ladder.to_json(),
        recipe=build_recipe(build),
        build_script=build_script(build),
        card=model_card(settings, sources, target, precision, ladder),
        licenses=licenses_text(settings, sources),
        sbom=bill_of_materials(
            run, target, precision, fitted_to_drawings=proven.fitted_to_drawings
        ),
        confidence=to_json(confidence),
        status="passed" if proven.passes(config.max_drop) else "failed",
        provenance={**_provenance(proven, material), **origin},
    )


def golden_set(surrogates: SurrogateSet, proof: Proof, side_px: int) -> GoldenSet:
    """Synthesized images, held-out ones first, classes in turn, with the logits of every rung.

    Images of drawings, which carry licences of their own, are not passed on.
    """
    rows = np.flatnonzero(surrogates.drawing_index < 0)
    rows = rows[np.argsort(~surrogates.is_heldout[rows], kind="stable")]
    labels = surrogates.class_index[rows]
    by_class = np.argsort(labels, kind="stable")
    turn = np.empty_like(rows)  # how many of its class come before an image
    turn[by_class] = np.arange(len(rows)) - np.searchsorted(labels[by_class], labels[by_class])
    chosen = rows[np.lexsort((labels, turn))][:NUM_GOLDEN]
    image_GSSC = resized_images(surrogates.images.rows(chosen), side_px)
    by_name = {rung.name: rung for rung in proof.rungs}
    native = resized_images(surrogates.images.rows(chosen), by_name[TEACHER].side_px)
    precisions: dict[Precision, Floats] = {}
    for precision in ("fp16", "int8"):
        if rung := by_name.get(f"onnx-{precision}"):
            precisions[precision] = rung.runner(image_GSSC).logits
    return GoldenSet(
        images=image_GSSC,
        teacher_logits=by_name[TEACHER].runner(native).logits,
        student_logits=by_name["onnx-fp32"].runner(image_GSSC).logits,
        precision_logits=precisions,
    )


def _calibration_document(
    found: Calibration | None, images: CalibrationSet | None
) -> dict[str, Any] | None:
    """Return calibration.json; None for a bundle without INT8."""
    if found is None or images is None:
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


def _provenance(proven: Proven, material: Material) -> dict[str, Any]:
    run = material.run
    return {
        "run": str(run.path),
        "student_sha256": file_hash(run.student.weights),
        "teacher": asdict(run.config.teacher),
        "teacher_content": teacher_content(run.config.teacher),
        "prompts": list(run.class_names.prompts),
        "config": asdict(material.config),
        "seed": material.context.seed,
        "lint_warnings": [asdict(finding) for finding in material.conversion.warnings],
        "rescue": proven.repair,
    }
