"""Other classes for a finished bundle, without training: the teacher's text tower makes the head.

The student answers in the teacher's embedding space, and its head is the matrix of class text
vectors (PromptKD): every graph keeps its weights and scales, the one tensor behind them changes,
for new names after a fit to drawings of them. What that cost is proven as an export is, on the
run's images under the new names.

Shape suffixes: D embedding width, K classes.
"""

import dataclasses
import time
from pathlib import Path

from torch import Tensor

from dfkd_edge.artifacts import ModelFile, StudentArtifact, load_tensors, save_tensors
from dfkd_edge.bundles.bundle import write_bundle
from dfkd_edge.bundles.origin import Origin, calibrated_images, graphs, read_origin
from dfkd_edge.config.settings import ExportConfig
from dfkd_edge.conversion.conversion import Conversion, Graphs
from dfkd_edge.deployment.contents import bundle_contents, fitted_confidence
from dfkd_edge.deployment.export import prove_graphs
from dfkd_edge.deployment.head_fit import FittedHead, HeadFit
from dfkd_edge.deployment.material import Material, Proven
from dfkd_edge.deployment.swap_plan import SwapPlan
from dfkd_edge.files import file_hash, read_json
from dfkd_edge.handover.make import RuntimeFolders, proven_model
from dfkd_edge.interfaces import Reporter
from dfkd_edge.networks.recorded_teacher import load_recorded_teacher
from dfkd_edge.networks.students import load_student
from dfkd_edge.plugins import load_exporter
from dfkd_edge.results.codec import to_json
from dfkd_edge.results.swap import KEY, Swap
from dfkd_edge.runs.context import StageContext
from dfkd_edge.runs.finished import FinishedRun, open_finished_run
from dfkd_edge.runs.run_dir import RunDir
from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.validation.rungs import evaluation_set, model_rung
from dfkd_edge.validation.swapped import GONE, Lists, in_names_of, kept_cost, places

CALIBRATION = "calibration.json"


def swap_classes(plan: SwapPlan, work: Path, reporter: Reporter) -> Bundle:
    """Make a bundle of the same student with other classes; `work` is an empty folder.

    Returns:
        The bundle; its status is `failed` when the gate lost more than is allowed.

    Raises:
        ArtifactError: the teacher is another one by now, or a file of the run is damaged.
        ConversionError: a graph is none of ours.
        EnvironmentLackingError: the teacher's weights are not here, or the disk is full.
    """
    begun, source = time.monotonic(), plan.source
    run = open_finished_run(plan.run)
    material, fitted = gather_swap(plan, run, work, reporter)
    swapped = swapped_graphs(source, material)
    proven = Proven(swapped, prove_graphs(swapped, material))
    confidence = fitted_confidence(proven.proof, material)
    swap = _swap(plan, run, proven, material, fitted)
    rescue = source.manifest.provenance.get("rescue")
    proven = dataclasses.replace(
        proven,
        repair=rescue,
        warnings=swap.warnings(),
        fitted_to_drawings=swap.num_drawn_images > 0,
    )
    made = {
        "key": plan.key,
        "folder": str(plan.folder.resolve()),
        "data": "",
        "seconds": round(time.monotonic() - begun, 1),
        KEY: to_json(swap),
    }
    contents = bundle_contents(proven, material, confidence, made)
    ranges = source.folder / CALIBRATION  # of the same activations: no text head is quantized
    calibration = read_json(ranges) if CALIBRATION in source.manifest.files else None
    contents = dataclasses.replace(contents, calibration=calibration)
    folders = RuntimeFolders(proven_model(contents), work)
    contents = dataclasses.replace(contents, runtimes=folders.make(plan.runtimes, reporter))
    with reporter.stage("writing the bundle", 1) as progress:
        bundle = write_bundle(plan.folder, contents)
        progress.advance()
    return bundle


def gather_swap(
    plan: SwapPlan, run: FinishedRun, work: Path, reporter: Reporter
) -> tuple[Material, FittedHead]:
    """Load teacher and student with the new names, and the run's images under them."""
    origin, names, learnt = read_origin(plan.source), plan.class_names, run.class_names.names
    with reporter.stage("loading teacher and student", 1) as progress:
        teacher = load_recorded_teacher(origin.teacher, names, origin.teacher_content)
        artifact = _with_head(plan.source, teacher.head_KD, names.names, work / "student")
        student = load_student(artifact)
        progress.advance()
    fitted, known = FittedHead(teacher.head_KD, 0, ()), places(names.names, learnt)
    if plan.with_drawings and (known == GONE).any():
        fitted = HeadFit(teacher, student, run.surrogates, known.tolist(), origin.seed).fit(
            reporter
        )
        artifact = _with_head(plan.source, fitted.head_KD, names.names, work / "student")
        student = load_student(artifact)
    context = StageContext(RunDir(run.path), reporter, origin.seed, "cpu")
    surrogates = in_names_of(teacher, run.surrogates, learnt)
    sides_px = (teacher.image_size_px, student.image_size_px)
    swapped = dataclasses.replace(
        run,
        config=dataclasses.replace(run.config, teacher=origin.teacher),
        class_names=names,
        student=artifact,
        surrogates=surrogates,
    )
    material = Material(
        swapped,
        Conversion(plan.target, _config(plan, origin), reporter, work),
        teacher,
        student,
        evaluation_set("", names.names, sides_px, surrogates, context),
        None,
        context,
        calibrated_images(plan.source),
    )
    return material, fitted


def _config(plan: SwapPlan, origin: Origin) -> ExportConfig:
    """Settings of the export that made the source, with the limit of this gate."""
    limit = origin.config.max_drop if plan.max_drop is None else plan.max_drop
    held, asked = {r.profile.name for r in plan.runtimes}, origin.config.runtimes
    names = asked if set(asked) == held else tuple(sorted(held))  # some may have been added later
    return dataclasses.replace(origin.config, max_drop=limit, runtimes=names)


def _with_head(
    source: Bundle, head_KD: Tensor, class_names: tuple[str, ...], folder: Path
) -> StudentArtifact:
    """Write the student of a bundle with another text head."""
    student = StudentArtifact.load(source.folder / "student")
    settings = dataclasses.replace(student.settings, classes=class_names)
    swapped = StudentArtifact(folder, settings)
    save_tensors(swapped.weights, {**load_tensors(student.weights), "head_KD": head_KD.numpy()})
    swapped.save_settings()
    return swapped


def swapped_graphs(source: Bundle, material: Material) -> Graphs:
    """Put the new head into every graph of a bundle; FP16 that is a flag is cast to be measured."""
    conversion, names = material.conversion, material.run.class_names.names
    head_DK = material.student.head_KD.T.contiguous().numpy()
    swapped: dict[str, ModelFile] = {}
    with conversion.reporter.stage("swapping the text head", len(source.manifest.models)) as bar:
        for model in graphs(source):
            path = conversion.folder / f"model.{model.precision}.onnx"
            made = load_exporter("head").export(model, head_DK, names, path)
            swapped[model.precision] = conversion.lint(made)
            bar.advance()
    fp32 = swapped["fp32"]
    if material.precision not in swapped:
        cast = load_exporter("fp16").cast(fp32, conversion.folder / "model.fp16.onnx")
        return Graphs(fp32, cast)
    return Graphs(fp32, swapped[material.precision])


def _swap(
    plan: SwapPlan, run: FinishedRun, proven: Proven, material: Material, fitted: FittedHead
) -> Swap:
    """Measure what the classes that stay lose, and write down where all comes from."""
    source, learnt = plan.source, run.class_names.names
    lists = Lists(learnt, source.classes, plan.class_names.names)
    last = graphs(source)[-1]
    before = model_rung(last, source.side_px, material.config.num_threads, source.manifest.backend)
    known = places(lists.after, learnt)
    cost, unmeasured = kept_cost(
        before, proven.proof, lists, run.surrogates, material.context.reporter
    )
    return Swap(
        bundle=str(source.folder.resolve()),
        bundle_sha256=source.sha256,
        student_sha256=file_hash(run.student.weights),
        learnt=learnt,
        unlearnt=tuple(n for n, place in zip(lists.after, known, strict=True) if place == GONE),
        drawn=fitted.drawn,
        num_drawn_images=fitted.num_images,
        cost=cost,
        unmeasured=unmeasured,
    )
