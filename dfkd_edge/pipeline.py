"""The straight line from class names to a proven bundle. Read this first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfkd_edge.artifacts import PromptSet, StudentArtifact, SurrogateSet
from dfkd_edge.calibration_need import find_shortage
from dfkd_edge.class_names import ClassNames
from dfkd_edge.config import PipelineConfig
from dfkd_edge.config_file import to_toml
from dfkd_edge.deployment.export import ExportPlan, export_student
from dfkd_edge.deployment.workplace import export_workplace
from dfkd_edge.distillation import distill
from dfkd_edge.few_shot import join_pictures
from dfkd_edge.finished_run import open_finished_run
from dfkd_edge.interfaces import Reporter, StageContext
from dfkd_edge.plugins import load_target
from dfkd_edge.prompts import diversify_prompts, require_styles
from dfkd_edge.real_pictures import RealPictures
from dfkd_edge.run_dir import RunDir, atomic_write
from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.students import require_start
from dfkd_edge.synthesis import require_synthesizer, synthesize
from dfkd_edge.teacher import Teacher, load_teacher
from dfkd_edge.validation.metrics import evaluate
from dfkd_edge.weights import require_weights


@dataclass(frozen=True, slots=True)
class DistillResult:
    """What `distill` leaves behind."""

    run_dir: Path
    prompts: PromptSet
    surrogates: SurrogateSet
    student: StudentArtifact
    evaluation: dict[str, Any]


def run_distill(
    config: PipelineConfig,
    teacher: Teacher,
    pictures: RealPictures | None,
    run_dir: RunDir,
    reporter: Reporter,
) -> DistillResult:
    """From a teacher that knows the class names to a working student."""
    context = StageContext(run_dir, reporter, config.seed, config.device)
    prompts = run_prompts(config, teacher, context)
    surrogates = synthesize(prompts, teacher, config.synthesis, context)
    shortage = find_shortage(surrogates.summary, config.export, load_target(config.export.target))
    if shortage:
        reporter.note(f"  {shortage.what}: {shortage.ways}")
    training = join_pictures(surrogates, pictures, teacher, config.few_shot, context)
    student = distill(teacher, training, config.distillation, context)
    evaluation = evaluate(student, teacher, surrogates, config.data, context)
    return DistillResult(run_dir.path, prompts, training, student, evaluation)


def open_teacher(config: PipelineConfig, class_names: ClassNames, reporter: Reporter) -> Teacher:
    """Load the teacher, and try what later stages take from elsewhere, before a run is made.

    Raises:
        DfkdEdgeError: something is wrong or not here; nothing was written.
    """
    require_weights(config)
    with reporter.stage("loading the teacher", 1) as progress:
        teacher = load_teacher(config.teacher, class_names, config.device)
        progress.advance()
    require_styles(teacher, config.prompts)
    require_synthesizer(teacher, config.synthesis)
    require_start(config.distillation, teacher.head_KD, teacher.logit_scale)
    return teacher


def run_prompts(config: PipelineConfig, teacher: Teacher, context: StageContext) -> PromptSet:
    """Record the request and make the prompts."""
    _record_request(config, teacher.classes, context.run_dir)
    return diversify_prompts(teacher, config.prompts, context)


def run_export_stage(
    run_path: Path,
    config: PipelineConfig,
    folder: Path,
    data: str,
    exist_ok: bool,
    reporter: Reporter,
) -> Bundle:
    """From a finished student to a proven bundle in `folder`."""
    with export_workplace(run_path) as work:
        run = open_finished_run(run_path)
        context = StageContext(RunDir(run.path, {}), reporter, config.seed, config.device)
        target = load_target(config.export.target)
        plan = ExportPlan(folder=folder, work=work, data=data, exist_ok=exist_ok)
        return export_student(run, target, config.export, plan, context)


def _record_request(config: PipelineConfig, class_names: ClassNames, run_dir: RunDir) -> None:
    lines = [
        f"{name}\t{prompt}" if prompt else name
        for name, prompt in zip(class_names.names, class_names.prompts, strict=True)
    ]
    atomic_write(run_dir.path / "classes.txt", "\n".join(lines) + "\n")
    atomic_write(run_dir.path / "config.toml", to_toml(config))
    run_dir.log(f"distill {len(class_names)} classes from {config.classes}")
