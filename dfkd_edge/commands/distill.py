"""The command `distill`: its flags, and what it shows of the plan and the result."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Context, Option

from dfkd_edge.commands import options as opt
from dfkd_edge.config.file import to_toml
from dfkd_edge.config.settings import FewShotConfig
from dfkd_edge.console import ConsoleReporter, loading_libraries, make_console
from dfkd_edge.machine.ranks import ALONE

if TYPE_CHECKING:
    from rich.console import Console

    from dfkd_edge.machine.ranks import Ranks
    from dfkd_edge.preflight import DistillPlan, DistillRequest
    from dfkd_edge.results.distilled import Distilled


def distill(
    context: Context,
    classes: opt.Classes = None,
    output: opt.RunOutput = None,
    data: opt.Labelled = None,
    baseline: opt.Baseline = None,
    images: opt.Images = None,
    preset: opt.Preset = None,
    teacher: opt.Teacher = None,
    pretrained: opt.Pretrained = None,
    student: opt.Student = None,
    student_init: opt.StudentInit = None,
    prompts: opt.Prompts = None,
    num_styles: opt.NumStyles = None,
    synthesis: opt.Synthesis = None,
    imgsz: opt.ImageSize = None,
    steps: opt.Steps = None,
    batch_size: opt.BatchSize = None,
    workers: opt.Workers = None,
    device: opt.Device = None,
    seed: opt.Seed = None,
    resume: Annotated[
        bool, Option("--resume/--no-resume", help="Go on with what is done, or start over.")
    ] = True,
    exist_ok: opt.RedoRun = False,
    config: opt.ConfigFile = None,
    set_: opt.Set = None,
    save_config: Annotated[opt.File, Option(help="Write the settings here, for any list.")] = None,
    tensorboard: Annotated[
        bool, Option("--tensorboard", help="Mirror the metrics to RUN/tensorboard.")
    ] = False,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Check, show plan and settings, do nothing.")
    ] = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Turn class names into a compact student of CLIP; the same command resumes a stopped run."""
    from dfkd_edge.preflight import DistillRequest

    request = DistillRequest(
        config_path=config,
        settings=opt.given_settings(context),
        output=output,
        resume=resume,
        exist_ok=exist_ok,
        tensorboard=tensorboard,
        dry_run=dry_run,
    )
    run_distill(request, workers, save_config, as_json=as_json, quiet=quiet)


def run_distill(
    request: DistillRequest,
    num_threads: int | None = None,
    save_config: Path | None = None,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Check a request, run it and show the result; `run` calls it too."""
    from dfkd_edge.class_names import translated_text
    from dfkd_edge.files import atomic_write
    from dfkd_edge.machine.joining import is_first_of_group, joined
    from dfkd_edge.preflight import plan_distill, require_agreement

    if request.dry_run and not is_first_of_group():
        return
    with joined() if not request.dry_run else contextlib.nullcontext(ALONE) as ranks:
        plan = plan_distill(dataclasses.replace(request, is_first=ranks.is_first))
        require_agreement(plan, ranks)
        if save_config and ranks.is_first:
            atomic_write(save_config, to_toml(plan.reusable))
        console = make_console(quiet or not ranks.is_first)
        if request.dry_run:
            if plan.list_read_as:
                text = translated_text(plan.class_names, plan.list_read_as)
                console.print(text, markup=False)
            _show_plan(plan, num_threads, as_json, console)
            return
        found, seconds = _make(plan, ranks, num_threads, console)
        if found and ranks.is_first:
            _show_result(plan, found, seconds, as_json, console)


def _make(
    plan: DistillPlan, ranks: Ranks, num_threads: int | None, console: Console
) -> tuple[Distilled | None, float | None]:
    """Run the stages, or show again what is finished; only the first rank then has it.

    Returns:
        The result, and the seconds that it took: None where the student was there.
    """
    from dfkd_edge.machine.process import prepare_process
    from dfkd_edge.runs.run_dir import read_stages

    reporter = ConsoleReporter(console)
    reporter.note(f"dfkd-edge: {len(plan.class_names)} classes from {plan.config.classes}")
    started = time.monotonic()
    found = _finished(plan) if ranks.is_first else None
    if ranks.any_of(found is not None):
        if note := _unused_device(plan):
            reporter.note(note)
        return found, None
    # a student that an earlier call has finished is shown without a time
    known = read_stages(plan.output).get("student") if plan.resume else None
    with loading_libraries(console):
        prepare_process(plan.config.device, num_threads, ranks)
        from dfkd_edge import pipeline
    found = pipeline.distill(plan, reporter, ranks).distilled
    is_new = read_stages(plan.output).get("student") != known
    return found, time.monotonic() - started if is_new else None


def _show_result(
    plan: DistillPlan, found: Distilled, seconds: float | None, as_json: bool, console: Console
) -> None:
    """Write the report and print what came out."""
    from dfkd_edge.report.page import refresh_report

    report = refresh_report(plan.output, ConsoleReporter(console))
    if as_json:
        opt.print_json(found.to_json(report))
        return
    from dfkd_edge.commands.distill_view import show_result  # numpy

    show_result(found, report, seconds, _few_shot_gain(plan))


def _finished(plan: DistillPlan) -> Distilled | None:
    """What lies there, where this very run is finished: it is shown again without torch.

    Real pictures to learn from may have changed, which only the stages can tell.
    """
    from dfkd_edge.runs.run_dir import holds_run, point_latest, tidy

    if not plan.resume or plan.pictures or not holds_run(plan.output, plan.key):
        return None
    from dfkd_edge.results.distilled import read_distilled  # numpy, which a new run waits for

    found = read_distilled(plan.output, plan.config.data, plan.config.baseline)
    if found:
        tidy(plan.output)
        point_latest(plan.output.parent, plan.output)
    return found


def _unused_device(plan: DistillPlan) -> str:
    """Say that a finished student is not made again on another device; empty for the same one."""
    from dfkd_edge.config.file import load_config

    made_on, asked = load_config(plan.output / "config.toml").device, plan.config.device
    if made_on == asked:
        return ""
    return (
        f"  finished on {made_on}, and shown again: --device {asked} was not used; "
        "--no-resume makes the student anew on it"
    )


def _few_shot_gain(plan: DistillPlan) -> str:
    """Say what `--images` brought, where the run without them lies beside this one."""
    from dfkd_edge.commands.distill_view import few_shot_gain
    from dfkd_edge.preflight import run_name

    if not plan.config.few_shot.images:
        return ""
    zero_shot = dataclasses.replace(plan.config, few_shot=FewShotConfig())
    return few_shot_gain(plan.output, plan.output.parent / run_name(zero_shot, plan.class_names))


def _show_plan(plan: DistillPlan, num_threads: int | None, as_json: bool, console: Console) -> None:
    """Estimate time and memory, with the threads that the run would have, and print all."""
    from dfkd_edge.machine.process import prepare_process
    from dfkd_edge.runs.run_dir import holds_run, read_stages

    with loading_libraries(console):
        prepare_process("cpu", num_threads)
        from dfkd_edge.estimates.distill import dry_distill
    is_done = plan.resume and holds_run(plan.output, plan.key)
    is_done = is_done and "student" in read_stages(plan.output)
    sys.stdout.write(dry_distill(plan, is_done, ConsoleReporter(console)).text(as_json))
