"""The ladder on a bundle: what `export` proved, proved again on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape

from dfkd_edge.artifacts import ModelFile, StudentArtifact
from dfkd_edge.class_names import ClassNames
from dfkd_edge.config import ExportConfig, TeacherConfig
from dfkd_edge.config_file import load_config
from dfkd_edge.deployment.bundle import Bundle
from dfkd_edge.deployment.proof import build_rungs, engine_rungs, evaluation_set, prove
from dfkd_edge.errors import ArtifactError, DfkdEdgeError
from dfkd_edge.finished_run import read_finished_surrogates
from dfkd_edge.interfaces import Reporter, StageContext
from dfkd_edge.run_dir import RunDir, file_hash
from dfkd_edge.runtime.bundle_files import read_json
from dfkd_edge.runtime_faults import faults_as_errors
from dfkd_edge.students import load_student
from dfkd_edge.teacher import load_teacher
from dfkd_edge.validation.evaluation_images import ArraySource, EvaluationSet

GOLDEN_DOMAIN = "golden images"


def check_bundle(
    bundle: Bundle, data: str, max_drop: float | None, reporter: Reporter
) -> dict[str, Any]:
    """Climb the ladder on a bundle: teacher, student, and every graph that lies in it.

    Args:
        bundle: verified.
        data: labelled pictures; empty takes the held-out surrogates of the run that made the
            bundle, or its golden images where the run is gone.
        max_drop: of the gate; None takes the bundle's own.
        reporter: shows the bars.

    Returns:
        The document of `check --json`.

    Raises:
        ArtifactError: the bundle does not say where it comes from.
        ConfigError: `data` cannot be used.
        EnvironmentLackingError: the teacher's weights are not here.
    """
    try:
        origin = bundle.manifest["provenance"]
        teacher_config, seed = TeacherConfig(**origin["teacher"]), int(origin["seed"])
        classes = ClassNames(bundle.classes, tuple(origin["prompts"]))
        config = ExportConfig(**{**origin["config"], "batch": tuple(origin["config"]["batch"])})
    except (KeyError, TypeError) as error:
        raise ArtifactError(
            "bundle does not say where it comes from",
            where=str(bundle.folder / "manifest.json"),
            hint="export it again",
        ) from error
    context = StageContext(RunDir(bundle.folder, {}), reporter, seed, "cpu")
    with reporter.stage("loading teacher and student", 1) as progress:
        teacher = load_teacher(teacher_config, classes)
        student = load_student(StudentArtifact.load(bundle.folder / "student"))
        progress.advance()
    sides_px = (teacher.image_size_px, student.image_size_px)
    evaluation = _evaluation(bundle, data, sides_px, context)
    models = _models(bundle)
    with reporter.stage("opening every rung", 1) as progress:
        rungs = build_rungs(teacher, student, models, config.num_threads)
        progress.advance()
    rungs = (*rungs, *engine_rungs(bundle, reporter))
    limit = config.max_drop if max_drop is None else max_drop
    proof = prove(rungs, evaluation, _calibrated(bundle), limit, reporter)
    confidence = bundle.manifest.get("confidence")
    return {"bundle": str(bundle.folder), **proof.document(bundle.classes, limit, confidence)}


def _models(bundle: Bundle) -> list[ModelFile]:
    """The graphs in the order of conversion."""
    notes = bundle.manifest.get("model_notes", {})
    held = bundle.manifest["models"]
    order = [name for name in ("fp32", "fp16", "int8") if name in held]
    with faults_as_errors():
        return [
            ModelFile(bundle.model_path(name), "onnx", name, notes.get(name, {}))  # type: ignore[arg-type]
            for name in order
        ]


def _calibrated(bundle: Bundle) -> frozenset[str]:
    path = bundle.folder / "calibration.json"
    if not path.is_file():
        return frozenset()
    with faults_as_errors():
        return frozenset(read_json(path).get("image_digests", ()))


def _evaluation(
    bundle: Bundle, data: str, sides_px: tuple[int, ...], context: StageContext
) -> EvaluationSet:
    run = Path(bundle.manifest["provenance"]["run"])
    names = bundle.classes
    if data:
        return evaluation_set(data, names, sides_px, None, context)
    try:
        if (
            file_hash(run / "student" / "student.safetensors")
            != (bundle.manifest["provenance"]["student_sha256"])
        ):
            raise ArtifactError("the run has another student by now", where=str(run))
        origin = bundle.manifest["provenance"]["prompts"]
        classes = ClassNames(names, tuple(origin))
        surrogates = read_finished_surrogates(run, load_config(run / "config.toml"), classes)
    except (DfkdEdgeError, OSError, KeyError) as error:
        context.reporter.note(
            f"  the run that made the bundle is not here ({escape(str(error))}): measuring on the "
            "golden images alone; pass --data DIR for more"
        )
        with faults_as_errors():
            golden = bundle.golden()
        labels = golden["teacher_logits"].argmax(1).astype(np.int64)
        source = ArraySource(GOLDEN_DOMAIN, golden["images"], labels)
        return EvaluationSet((source,), "agreement", f"{len(labels)} golden images of the bundle")
    return evaluation_set("", names, sides_px, surrogates, context)
