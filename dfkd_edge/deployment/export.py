"""The export stage: a finished run -> a bundle, its accuracy measured after every conversion."""

import dataclasses
import time
from pathlib import Path

from dfkd_edge.bundles.bundle import write_bundle
from dfkd_edge.bundles.replacement import finished_bundle
from dfkd_edge.conversion.conversion import Graphs
from dfkd_edge.deployment.contents import bundle_contents, fitted_confidence
from dfkd_edge.deployment.material import Material, Proven, gather
from dfkd_edge.deployment.repair import repair
from dfkd_edge.errors import ConfigError
from dfkd_edge.files import content_hash, file_hash, folder_stamp
from dfkd_edge.handover.lookup import require_runtimes
from dfkd_edge.handover.make import RuntimeFolders, proven_model
from dfkd_edge.pictures.real import pictures_below, shared_picture
from dfkd_edge.preflight import ExportPlan
from dfkd_edge.runs.context import StageContext
from dfkd_edge.runs.finished import FinishedRun
from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.validation.rungs import Proof, as_in_bundle, build_rungs, prove
from dfkd_edge.version import __version__


def export_student(run: FinishedRun, plan: ExportPlan, work: Path, context: StageContext) -> Bundle:
    """Convert, prove, repair if need be, and bundle; a bundle of equal inputs is opened instead.

    Returns:
        The bundle; its status is `failed` when the gate lost more than `config.max_drop`.

    Raises:
        ConfigError: the target cannot do what is asked, or pictures are missing or shared.
        ConversionError: an exporter, the lint or TensorRT's parser refuses a graph.
    """
    begun, config = time.monotonic(), plan.config.export
    key = export_key(run, plan, context.seed)
    finished = _finished_bundle(plan, key)
    if finished:
        context.reporter.note(f"  already exported with these settings: {plan.folder}")
        return finished
    refuse_shared_files(config.calibration_data, plan.data)
    material = gather(run, plan, work, context)

    graphs = material.conversion.convert(run.student, material.precision, material.calibration)
    proven = Proven(graphs, prove_graphs(graphs, material))
    if material.calibration and config.repair and not proven.passes(config.max_drop):
        proven = repair(proven, material)

    oracle = material.conversion.consult_oracle(material.shipped(proven.graphs))
    confidence = fitted_confidence(proven.proof, material)
    origin = {
        "key": key,
        "folder": str(plan.folder.resolve()),
        "data": plan.data,
        "oracle": [{"model": name, **dataclasses.asdict(r)} for name, r in oracle.items()],
        "seconds": round(time.monotonic() - begun, 1),
    }
    contents = bundle_contents(proven, material, confidence, origin)
    runtimes = require_runtimes(
        config.runtimes, plan.target, batch=config.batch, classes=run.class_names.names
    )
    folders = RuntimeFolders(proven_model(contents), work)
    contents = dataclasses.replace(contents, runtimes=folders.make(runtimes, context.reporter))
    with context.reporter.stage("writing the bundle", 1) as progress:
        bundle = write_bundle(plan.folder, contents)
        progress.advance()
    return bundle


def prove_graphs(graphs: Graphs, material: Material) -> Proof:
    """Run all images through teacher, student, every graph and, if it can be built, the engine."""
    config, reporter = material.config, material.context.reporter
    with reporter.stage("opening every rung", 1) as progress:
        rungs = build_rungs(
            material.teacher,
            material.student,
            graphs.models,
            config.num_threads,
            material.target.backend,
        )
        rungs = as_in_bundle(rungs, [model.precision for model in material.shipped(graphs)])
        progress.advance()
    rungs = (*rungs, *material.engine_rungs(graphs))
    return prove(rungs, material.evaluation, material.calibrated, config.max_drop, reporter)


def export_key(run: FinishedRun, plan: ExportPlan, seed: int) -> str:
    """Hash what a bundle's content depends on, the version of this tool among it."""
    config, data = plan.config.export, plan.data
    weights = file_hash(run.student.weights)
    facts = dataclasses.replace(plan.target, facts={})  # sources of figures change no graph
    pictures = [folder_stamp(folder) for folder in (config.calibration_data, data)]
    made_by = ("export", __version__, seed)
    return content_hash(*made_by, weights, run.student.settings, facts, config, data, pictures)


def _finished_bundle(plan: ExportPlan, key: str) -> Bundle | None:
    """The bundle that is already there, if it is of this export."""
    why = "its settings or its target are others, or pictures of --data or --calib-data changed"
    return finished_bundle(plan.folder, key, "" if plan.exist_ok else why)


def refuse_shared_files(calibration_data: str, data: str) -> None:
    """Stop early when the same pictures would calibrate and measure.

    Raises:
        ConfigError: the folders share a picture.
    """
    if not (calibration_data and data):
        return
    shared = shared_picture(pictures_below(Path(calibration_data)), Path(data))
    if shared:
        raise ConfigError(
            "calibration and evaluation share pictures, the measured accuracy would flatter, such "
            f"as {shared[1]}",
            where=f"--calib-data {calibration_data} --data {data}",
            hint="keep them apart",
        )
