"""The ladder on a bundle: what `export` proved, proved again on this machine."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dfkd_edge.artifacts import ModelFile, StudentArtifact, SurrogateSet
from dfkd_edge.bundles.origin import (
    calibrated_images,
    graphs,
    measured_again,
    read_origin,
    run_with_surrogates,
)
from dfkd_edge.class_names import read_class_names
from dfkd_edge.errors import DfkdEdgeError, faults_as_errors
from dfkd_edge.files import file_hash, scratch_folder
from dfkd_edge.interfaces import Reporter
from dfkd_edge.networks.recorded_teacher import load_recorded_teacher
from dfkd_edge.networks.students import load_student
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.plugins import load_exporter
from dfkd_edge.results.codec import from_json
from dfkd_edge.results.confidence import FittedConfidence
from dfkd_edge.results.ladder import Ladder
from dfkd_edge.runs.context import StageContext
from dfkd_edge.runs.finished import read_finished_surrogates
from dfkd_edge.runs.run_dir import RunDir
from dfkd_edge.runtime.bundle_files import MANIFEST, Bundle
from dfkd_edge.runtime.caveats import graph_notes
from dfkd_edge.validation.evaluation_images import GOLDEN_DOMAIN, ArraySource, EvaluationSet
from dfkd_edge.validation.rungs import (
    as_in_bundle,
    build_rungs,
    engine_rungs,
    evaluation_set,
    ladder_notes_of,
    prove,
)
from dfkd_edge.validation.swapped import in_names_of


def check_bundle(
    bundle: Bundle, data: str, max_drop: float | None, reporter: Reporter, device: str
) -> Ladder:
    """Climb the ladder on a bundle: teacher, student, and every graph that lies in it.

    Args:
        bundle: verified.
        data: labelled pictures; empty takes the images on which `export` proved the bundle without
            data, view by view: held-out surrogates of its run. Where the run is gone, its golden
            images.
        max_drop: of the gate; None takes the bundle's own.
        reporter: shows the bars.
        device: of teacher and student; graphs are run on the CPU, whose arithmetic the gate of
            `export` has judged.

    Raises:
        ArtifactError: the bundle does not say where it comes from.
        ConfigError: `data` cannot be used.
        EnvironmentLackingError: the teacher's weights are not here.
    """
    origin = read_origin(bundle)
    context = StageContext(RunDir(bundle.folder), reporter, origin.seed, device)
    with reporter.stage("loading teacher and student", 1) as progress:
        content = origin.teacher_content
        teacher = load_recorded_teacher(origin.teacher, origin.classes, content, device)
        student = load_student(StudentArtifact.load(bundle.folder / "student")).to(device)
        progress.advance()
    backend = bundle.manifest.backend
    sides_px = (teacher.image_size_px, student.image_size_px)
    evaluation = _evaluation(bundle, teacher, data, sides_px, context)
    with reporter.stage("opening every rung", 1) as progress:
        with _measured_graphs(bundle) as models:
            rungs = build_rungs(teacher, student, models, origin.config.num_threads, backend)
        progress.advance()
    held = bundle.manifest.models  # the cast is measured, but no file of the bundle
    rungs = (*as_in_bundle(rungs, held), *engine_rungs(bundle, reporter))
    limit = origin.config.max_drop if max_drop is None else max_drop
    proof = prove(rungs, evaluation, calibrated_images(bundle), limit, reporter)
    fitted = bundle.manifest.confidence
    confidence = from_json(FittedConfidence, fitted, bundle.folder / MANIFEST) if fitted else None
    notes = origin.swap.warnings() if origin.swap else ()
    notes += tuple(ladder_notes_of(bundle.precision, held))
    return dataclasses.replace(
        proof.ladder(bundle.classes, limit, confidence, notes),
        bundle=str(bundle.folder),
        bundle_sha256=file_hash(bundle.folder / MANIFEST),
        data=str(Path(data).resolve()) if data else "",
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


@contextlib.contextmanager
def _measured_graphs(bundle: Bundle) -> Iterator[list[ModelFile]]:
    """The graphs of a bundle, and the cast of FP16 where it holds none, for as long as needed."""
    held = graphs(bundle)
    if not graph_notes(bundle.precision, bundle.manifest.models):
        yield held
        return
    with scratch_folder() as folder:
        fp32 = next(model for model in held if model.precision == "fp32")
        yield [*held, load_exporter("fp16").cast(fp32, folder / "model.fp16.onnx")]


def _evaluation(
    bundle: Bundle,
    teacher: Teacher,
    data: str,
    sides_px: tuple[int, ...],
    context: StageContext,
) -> EvaluationSet:
    names = bundle.classes
    if data:
        return evaluation_set(data, names, sides_px, None, context)
    try:
        surrogates = _surrogates(bundle, teacher)
    except (DfkdEdgeError, OSError) as error:
        context.reporter.note(
            f"  images of the run that made the bundle are not here ({error}): "
            "measuring on the golden images alone; pass --data DIR for more"
        )
        with faults_as_errors():
            golden = bundle.golden()
        labels = golden["teacher_logits"].argmax(1).astype(np.int64)  # they were never labelled
        source = ArraySource(GOLDEN_DOMAIN, golden["images"], labels)
        return EvaluationSet((source,), "agreement", f"{len(labels)} golden images of the bundle")
    suite = evaluation_set("", names, sides_px, surrogates, context)
    return suite.repeated(measured_again(bundle))


def _surrogates(bundle: Bundle, teacher: Teacher) -> SurrogateSet:
    """Read the images of the run; where classes were swapped, under the names of the bundle."""
    run = run_with_surrogates(bundle)
    learnt = read_class_names(run / "classes.txt")
    surrogates = read_finished_surrogates(run, learnt)
    if read_origin(bundle).swap is None:
        return surrogates
    return in_names_of(teacher, surrogates, learnt.names)
