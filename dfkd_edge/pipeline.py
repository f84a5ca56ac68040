"""The straight line from class names to a proven bundle: one function a verb. Read this first.

Commands and Python API check a request (`preflight.py`), then call what stands here; stages meet
through the typed artifacts that are passed from line to line.
"""

import contextlib
import functools
import time
from dataclasses import dataclass
from pathlib import Path

from dfkd_edge.artifacts import PromptSet, StudentArtifact, SurrogateSet, SurrogateSummary
from dfkd_edge.bundles.scratch import export_scratch
from dfkd_edge.bundles.signature import is_signed, sign_or_tell
from dfkd_edge.class_lint.look_alikes import look_alikes_text
from dfkd_edge.class_lint.slips import note_slips
from dfkd_edge.class_names import ClassNames, translated_text
from dfkd_edge.config.file import to_toml
from dfkd_edge.config.settings import PipelineConfig
from dfkd_edge.conversion.calibration_need import find_shortage
from dfkd_edge.conversion.trial import require_exportable
from dfkd_edge.deployment.export import export_student
from dfkd_edge.deployment.swap import swap_classes
from dfkd_edge.deployment.swap_plan import SwapPlan
from dfkd_edge.distillation import distill as distill_student
from dfkd_edge.distillation import require_images
from dfkd_edge.files import atomic_write, file_hash, read_json
from dfkd_edge.interfaces import Reporter, WorkShare
from dfkd_edge.machine.process import check_device, usable_device
from dfkd_edge.machine.ranks import ALONE, Ranks
from dfkd_edge.networks.baseline import load_baseline
from dfkd_edge.networks.students import require_start
from dfkd_edge.networks.teacher import Teacher, load_teacher
from dfkd_edge.networks.weights import require_weights
from dfkd_edge.pictures.few_shot import join_pictures
from dfkd_edge.pictures.labelled import note_strangers
from dfkd_edge.preflight import DistillPlan, ExportPlan, needed_weights
from dfkd_edge.prompts import diversify_prompts, require_styles
from dfkd_edge.prompts.diversify import STAGE as PROMPTS
from dfkd_edge.results.distilled import Distilled
from dfkd_edge.results.kept import EVALUATION, keep_check
from dfkd_edge.results.ladder import Ladder
from dfkd_edge.runs.context import StageContext
from dfkd_edge.runs.finished import open_finished_run
from dfkd_edge.runs.lock import holder_of
from dfkd_edge.runs.log import LoggedReporter, mirrored
from dfkd_edge.runs.run_dir import RunDir, noting_what_is_kept, point_latest, read_stages
from dfkd_edge.runs.shared import await_file, open_shared_run
from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.synthesis import synthesize as stage
from dfkd_edge.synthesis.saved_images import SavedSet, save_images
from dfkd_edge.synthesis.saving import SavePlan
from dfkd_edge.synthesis.synthesizers import SYNTHESIZERS
from dfkd_edge.target_profiles.lookup import load_target
from dfkd_edge.validation.check import check_bundle
from dfkd_edge.validation.evaluate import evaluate

LOCK_WAIT_S = 3_600.0
"""For a process that makes the prompts, or works in the same run for another reason."""


@dataclass(frozen=True, slots=True)
class DistillResult:
    """What `distill` leaves behind."""

    run_dir: Path
    prompts: PromptSet
    surrogates: SurrogateSet
    student: StudentArtifact
    evaluation: Ladder

    @property
    def distilled(self) -> Distilled:
        """The same without arrays, as it is shown."""
        return Distilled(
            self.run_dir,
            self.student,
            self.prompts.diversity,
            self.surrogates.summary,
            self.evaluation,
        )


@dataclass(frozen=True, slots=True)
class SynthesizeResult:
    """How far the surrogate images of a run are."""

    run_dir: Path
    num_shards: int
    num_shards_missing: int
    summary: SurrogateSummary | None  # None while shards are missing, or where another closes
    saved: SavePlan | None = None  # Where the images were saved too


def distill(plan: DistillPlan, reporter: Reporter, ranks: Ranks = ALONE) -> DistillResult:
    """From class names to a working student in its run directory, which runs/latest then names.

    The directory is made, or an earlier one touched, once all that the run needs is known to serve.
    Of several ranks the first one writes and speaks, and the others read what it wrote.
    """
    started = time.monotonic()
    config = plan.config
    require_images(config.distillation, ranks)
    if plan.list_read_as:
        reporter.note(f"  {translated_text(plan.class_names, plan.list_read_as)}")
    note_slips(plan.class_names.names, reporter, holds_prompts=not plan.list_read_as)
    if config.data:
        note_strangers(Path(config.data), plan.class_names.names, reporter)
    teacher = open_teacher(config, plan.class_names, reporter)
    alike = look_alikes_text(teacher)
    if alike:
        reporter.note(f"  {alike}")
    if config.baseline and ranks.is_first:  # told of before hours of work if it cannot be loaded
        load_baseline(config.baseline, config.teacher.templates, plan.class_names)
    if ranks.is_first and "surrogates" not in read_stages(plan.output):
        require_exportable(config, reporter)
    with (
        noting_what_is_kept(plan.output),
        open_shared_run(
            plan.output, plan.key, ranks, resume=plan.resume, exist_ok=plan.exist_ok
        ) as run_dir,
        mirrored(run_dir) if plan.tensorboard and ranks.is_first else contextlib.nullcontext(),
    ):
        reporter.note(f"run directory: {plan.output}")
        context = StageContext(
            run_dir, LoggedReporter(reporter, run_dir), config.seed, config.device, ranks
        )
        prompts = make_prompts(config, teacher, context)
        surrogates = stage.synthesize(prompts, teacher, config.synthesis, context)
        target = load_target(config.export.target)
        shortage = find_shortage(surrogates.summary, config.export, target)
        if shortage:  # INT8 will lack images to calibrate on: told before hours of training
            context.reporter.note(f"  {shortage.what}: {shortage.ways}")
        training = join_pictures(surrogates, plan.pictures, teacher, config.few_shot, context)
        student = distill_student(teacher, training, config.distillation, context)
        evaluation = judge(student, teacher, surrogates, config.data, context, config.baseline)
        run_dir.log(f"done in {time.monotonic() - started:.0f} s")
    if ranks.is_first:  # finished runs alone: export takes it by default
        point_latest(plan.output.parent, plan.output)
    return DistillResult(run_dir.path, prompts, training, student, evaluation)


def synthesize(
    plan: DistillPlan,
    share: WorkShare,
    reporter: Reporter,
    ranks: Ranks = ALONE,
    saving: SavePlan | None = None,
) -> SynthesizeResult:
    """Make the shards of a job, or all; the last job to see all of them closes the stage.

    Each of n jobs makes every n-th shard; a shard depends on the seed and its number alone, so the
    set is the same however it is split. Jobs meet in the run directory and nowhere else: the first
    one makes the prompts under the run's lock, the last one to find every shard closes the stage.
    The ranks of a job split its share. Whoever closes the stage saves the images for other
    programs.
    """
    config, output = plan.config, plan.output
    open_locked = functools.partial(
        open_shared_run,
        output,
        plan.key,
        ranks,
        resume=True,
        exist_ok=plan.exist_ok,
        wait_s=LOCK_WAIT_S,
    )
    teacher = open_teacher(config, plan.class_names, reporter)
    holder = holder_of(output) if ranks.is_first else ""
    turn = f"waiting for {holder}: jobs that share a run take turns at its prompts"
    with contextlib.ExitStack() as stack:
        with reporter.stage(turn, 1) if holder else contextlib.nullcontext():
            run_dir = stack.enter_context(open_locked())  # held beyond the bar that waits for it
        context = StageContext(run_dir, reporter, config.seed, config.device, ranks)
        prompts = make_prompts(config, teacher, context)
    setup = stage.synthesis_setup(prompts, teacher, config.synthesis, context)
    with noting_what_is_kept(output):
        stage.make_shards(setup, share)
    missing = len(stage.missing_shards(setup)) if ranks.is_first else 0
    missing = int(ranks.tell(str(missing)))
    if missing:
        return SynthesizeResult(output, setup.num_shards, missing, None)
    with noting_what_is_kept(output), open_locked() as run_dir:
        context = StageContext(run_dir, reporter, config.seed, config.device, ranks)
        surrogates = stage.synthesize(prompts, teacher, config.synthesis, context)
        if saving and ranks.is_first:
            save_images(SavedSet(surrogates, prompts, teacher), saving, reporter)
    return SynthesizeResult(output, setup.num_shards, 0, surrogates.summary, saving)


def export(plan: ExportPlan, reporter: Reporter) -> Bundle:
    """From a finished student to a proven bundle; its status says whether the gate passed."""
    check_device(plan.device or "cpu")
    was_signed = is_signed(plan.folder)
    with export_scratch(plan.run) as work:
        run = open_finished_run(plan.run)
        device = plan.device or usable_device(plan.config.device)  # a GPU's run goes anywhere
        if not plan.device and device != plan.config.device:
            reporter.note(f"  {plan.config.device} cannot be used here: exported on the CPU")
        context = StageContext(RunDir(run.path), reporter, plan.config.seed, device)
        bundle = export_student(run, plan, work, context)
    sign_or_tell(bundle, plan.sign, was_signed, reporter)  # a finished one, too: it changes nothing
    return bundle


def swap(plan: SwapPlan, reporter: Reporter) -> Bundle:
    """Give a finished bundle other classes, without training; the one that it was stays."""
    was_signed = is_signed(plan.source.folder) or is_signed(plan.folder)
    with export_scratch(plan.run) as work:  # a finished one, too: a kill may have left folders
        if plan.finished:
            reporter.note(f"  already swapped to this list: {plan.folder}")
        bundle = plan.finished or swap_classes(plan, work, reporter)
    sign_or_tell(bundle, plan.sign, was_signed, reporter)
    return bundle


def check(
    bundle: Bundle, data: str, max_drop: float | None, reporter: Reporter, device: str = "cpu"
) -> Ladder:
    """Climb the ladder on a bundle again, and keep what was measured in it.

    `device` is that of teacher and student.
    """
    check_device(device)
    ladder = check_bundle(bundle, data, max_drop, reporter, device)
    keep_check(bundle.folder, ladder, reporter)
    return ladder


def open_teacher(config: PipelineConfig, class_names: ClassNames, reporter: Reporter) -> Teacher:
    """Load the teacher, and try what later stages take from elsewhere, before a run is made.

    Raises:
        DfkdEdgeError: something is wrong or not here; nothing was written.
    """
    require_weights(needed_weights(config))
    with reporter.stage("loading the teacher", 1) as progress:
        teacher = load_teacher(config.teacher, class_names, config.device)
        progress.advance()
    require_styles(teacher, config.prompts)
    SYNTHESIZERS[config.synthesis.method].require(teacher, config.synthesis)
    require_start(config.distillation, teacher.head_KD, teacher.logit_scale)
    return teacher


def make_prompts(config: PipelineConfig, teacher: Teacher, context: StageContext) -> PromptSet:
    """Record the request in the run directory and make the prompts."""
    classes, run_dir = teacher.classes, context.run_dir

    def make() -> PromptSet:
        lines = [
            f"{name}\t{prompt}" if prompt else name
            for name, prompt in zip(classes.names, classes.prompts, strict=True)
        ]
        atomic_write(run_dir.path / "classes.txt", "\n".join(lines) + "\n")
        atomic_write(run_dir.path / "config.toml", to_toml(config))
        run_dir.log(f"distill {len(classes)} classes from {config.classes}")
        return diversify_prompts(teacher, config.prompts, context)

    return context.first_then_rest(make, lambda: PromptSet.load(run_dir.path / PROMPTS))


def judge(
    student: StudentArtifact,
    teacher: Teacher,
    surrogates: SurrogateSet,
    data: str,
    context: StageContext,
    baseline: str = "",
) -> Ladder:
    """Evaluate the student on the first rank: the others wait, which takes no core."""
    path, ranks = context.run_dir.path / EVALUATION, context.ranks
    ladder = context.first_then_rest(
        lambda: evaluate(student, teacher, surrogates, data, context, baseline), lambda: None
    )
    known = ranks.tell(file_hash(path) if ranks.is_first else "")  # no stage, so in no manifest
    if ladder is None:
        await_file(path, known, ranks.name)
        return Ladder.from_json(read_json(path), path)
    return ladder
