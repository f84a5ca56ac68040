"""The command `distill`: its flags, and what it shows of the plan and the result."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfkd_edge.commands.options import (
    AsJson,
    Classes,
    ConfigFile,
    Device,
    File,
    Number,
    Quiet,
    RedoRun,
    RunOutput,
    RunSet,
    Synthesis,
    Text,
    Verbose,
    Workers,
)
from dfkd_edge.config.file import settings_of, to_toml
from dfkd_edge.config.settings import FewShotConfig

if TYPE_CHECKING:
    from rich.console import Console

    from dfkd_edge.preflight import DistillPlan, DistillRequest
    from dfkd_edge.results.distilled import Distilled


def distill(
    classes: Classes = None,
    output: RunOutput = None,
    data: Annotated[
        File,
        typer.Option(help="Labelled pictures, for evaluation only: DIR/[DOMAIN/]CLASS/*.jpg."),
    ] = None,
    images: Annotated[
        File, typer.Option(help="A few real pictures to learn from: DIR/[CLASS/]*.jpg.")
    ] = None,
    preset: Annotated[
        Text, typer.Option(help="Settings to start from: mini, mini-high, clip-b32 or clip-l14.")
    ] = None,
    teacher: Annotated[
        Text, typer.Option(help="mini, an open_clip name or a local folder (default: mini).")
    ] = None,
    pretrained: Annotated[
        Text, typer.Option(help="open_clip's tag of the teacher's weights.")
    ] = None,
    student: Annotated[Text, typer.Option(help="mini or a timm name (default: mini).")] = None,
    student_init: Annotated[
        Text, typer.Option(help="pretrained or random (default: pretrained).")
    ] = None,
    prompts: Annotated[
        Text, typer.Option(help="base, mix, random or contrastive (default: contrastive).")
    ] = None,
    num_styles: Annotated[Number, typer.Option(help="Styles of the prompts (default: 16).")] = None,
    synthesis: Synthesis = None,
    imgsz: Annotated[Number, typer.Option(help="Side of the student's input in pixels.")] = None,
    steps: Annotated[Number, typer.Option(help="Distillation steps (default: 200).")] = None,
    batch_size: Annotated[Number, typer.Option(help="Views a step (default: 96).")] = None,
    workers: Workers = None,
    device: Device = None,
    seed: Annotated[
        Number, typer.Option(help="Every random number follows from it (default: 0).")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on with what is done, or start over.")
    ] = True,
    exist_ok: RedoRun = False,
    config: ConfigFile = None,
    set_: RunSet = None,
    save_config: Annotated[File, typer.Option(help="Write the resolved settings here.")] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Mirror the metrics to RUN/tensorboard.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check, show plan and settings, do nothing.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Turn class names into a compact student of CLIP; the same command resumes a stopped run."""
    flags = {
        "classes": classes,
        "data": data,
        "images": images,
        "preset": preset,
        "teacher": teacher,
        "pretrained": pretrained,
        "student": student,
        "student_init": student_init,
        "prompts": prompts,
        "num_styles": num_styles,
        "synthesis": synthesis,
        "imgsz": imgsz,
        "steps": steps,
        "batch_size": batch_size,
        "device": device,
        "seed": seed,
    }
    from dfkd_edge.preflight import DistillRequest

    request = DistillRequest(
        config_path=config,
        settings=settings_of(set_ or (), flags),
        output=output,
        resume=resume,
        exist_ok=exist_ok,
        tensorboard=tensorboard,
        dry_run=dry_run,
    )
    run_distill(request, workers, save_config, as_json=as_json, quiet=quiet)


def run_distill(
    request: DistillRequest,
    num_threads: int | None,
    save_config: Path | None,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Check a request, run it and show the result; `run` calls it too."""
    from dfkd_edge.console import ConsoleReporter, loading_libraries, make_console
    from dfkd_edge.files import atomic_write
    from dfkd_edge.machine.process import prepare_process
    from dfkd_edge.preflight import plan_distill
    from dfkd_edge.runs.run_dir import read_stages

    plan = plan_distill(request)
    if save_config:
        atomic_write(save_config, to_toml(plan.config))
    console = make_console(quiet)
    if request.dry_run:
        _show_plan(plan, num_threads, as_json, console)
        return
    reporter = ConsoleReporter(console)
    reporter.note(f"dfkd-edge: {len(plan.class_names)} classes from {plan.config.classes}")
    started, seconds = time.monotonic(), None
    found = _finished(plan)
    if found is None:
        known = read_stages(plan.output).get("student") if request.resume else None
        with loading_libraries(console):
            prepare_process(plan.config.device, num_threads)
            from dfkd_edge import pipeline
        found = pipeline.distill(plan, reporter).distilled
        if read_stages(plan.output).get("student") != known:
            seconds = time.monotonic() - started
    from dfkd_edge.report.page import refresh_report

    report = refresh_report(plan.output, reporter)
    if as_json:
        sys.stdout.write(json.dumps(found.to_json(report), ensure_ascii=False) + "\n")
        return
    from dfkd_edge.commands.distill_view import show_result

    show_result(found, report, seconds, _few_shot_gain(plan))


def _finished(plan: DistillPlan) -> Distilled | None:
    """What lies there, where this very run is finished: it is shown again without torch.

    Real pictures to learn from may have changed, which only the stages can tell.
    """
    from dfkd_edge.runs.run_dir import holds_run, point_latest

    if not plan.resume or plan.pictures or not holds_run(plan.output, plan.key):
        return None
    from dfkd_edge.results.distilled import read_distilled  # numpy, which a new run waits for

    found = read_distilled(plan.output, plan.config.data)
    if found:
        point_latest(plan.output.parent, plan.output)
    return found


def _few_shot_gain(plan: DistillPlan) -> str:
    """Say what `--images` brought, where the run without them lies beside this one."""
    from dfkd_edge.commands.distill_view import few_shot_gain
    from dfkd_edge.preflight import run_name

    if not plan.config.few_shot.images:
        return ""
    zero_shot = dataclasses.replace(plan.config, few_shot=FewShotConfig())
    return few_shot_gain(plan.output, plan.output.parent / run_name(zero_shot, plan.class_names))


def _show_plan(
    planned: DistillPlan, num_threads: int | None, as_json: bool, console: Console
) -> None:
    """Estimate time and memory, with the threads that the run would have, and print all."""
    from dfkd_edge.console import ConsoleReporter, loading_libraries
    from dfkd_edge.machine.process import prepare_process
    from dfkd_edge.runs.run_dir import read_stages

    with loading_libraries(console):
        prepare_process("cpu", num_threads)
        from dfkd_edge.estimates.distill import dry_distill
    is_done = planned.resume and not planned.exist_ok and "student" in read_stages(planned.output)
    dry_run = dry_distill(planned, is_done, ConsoleReporter(console))
    sys.stdout.write(dry_run.text(as_json))
