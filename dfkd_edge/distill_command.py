"""What `distill` does between its flags and the pipeline: directory, console, result."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from dfkd_edge.class_names import ClassNames, read_class_names, slug
from dfkd_edge.class_slips import note_slips
from dfkd_edge.config import FewShotConfig, PipelineConfig
from dfkd_edge.config_file import load_config, to_toml
from dfkd_edge.console import ConsoleReporter, loading_libraries, make_console
from dfkd_edge.deployment.precision import chosen_precision
from dfkd_edge.distill_view import show_result
from dfkd_edge.errors import ConfigError
from dfkd_edge.interruption import noting_what_is_kept
from dfkd_edge.metrics_mirror import mirrored, require_tensorboard
from dfkd_edge.model_names import require_student, require_teacher
from dfkd_edge.plugins import load_target
from dfkd_edge.process import prepare_process
from dfkd_edge.report_command import refresh_report
from dfkd_edge.run_dir import (
    atomic_write,
    open_run,
    point_latest,
    read_stages,
    refuse_other_run,
    require_writable,
)
from dfkd_edge.run_key import run_key
from dfkd_edge.run_lock import refuse_run_in_use
from dfkd_edge.run_log import LoggedReporter
from dfkd_edge.runtime_faults import require_pictures

if TYPE_CHECKING:
    from rich.console import Console

    from dfkd_edge.interfaces import Reporter
    from dfkd_edge.pipeline import DistillResult
    from dfkd_edge.real_pictures import RealPictures


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillRequest:
    """The flags of `dfkd-edge distill`."""

    config_path: Path | None
    overrides: tuple[str, ...]
    output: Path | None
    runs: Path
    num_threads: int | None
    resume: bool
    exist_ok: bool
    save_config: Path | None
    dry_run: bool
    as_json: bool
    quiet: bool
    tensorboard: bool = False


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """A request that can be met."""

    config: PipelineConfig
    class_names: ClassNames
    pictures: RealPictures | None
    """Of `--images`."""
    key: str
    output: Path
    """The run directory."""


def read_request(
    config_path: Path | None, overrides: tuple[str, ...]
) -> tuple[PipelineConfig, ClassNames]:
    """Read the settings of a run and its class list.

    Raises:
        ConfigError: a setting is wrong, or no class list is named.
        UsageError: the list cannot be used.
    """
    config = load_config(config_path, overrides)
    if not config.classes:
        raise ConfigError(
            "no class list", where="--classes", hint="name a text file, one class a line"
        )
    return config, read_class_names(Path(config.classes))


def plan_run(request: DistillRequest) -> PlannedRun:
    """Settle configuration and run directory, before any heavy library is imported.

    Raises:
        UsageError: the request cannot be met.
        EnvironmentLackingError: the run directory cannot be written.
    """
    from dfkd_edge.real_pictures import find_real_pictures

    config, class_names = read_request(request.config_path, request.overrides)
    _refuse_early(config, class_names)
    pictures = find_real_pictures(config.few_shot, config.data, class_names.names)
    key = run_key(config, class_names)
    output = request.output or request.runs / run_name(config, class_names)
    if request.tensorboard:
        require_tensorboard()
    if not request.exist_ok:
        refuse_other_run(output, key)
    require_writable(output)
    if not request.dry_run:
        refuse_run_in_use(output)
    return PlannedRun(config, class_names, pictures, key, output)


def distill_planned(plan: PlannedRun, request: DistillRequest, reporter: Reporter) -> DistillResult:
    """Run the pipeline in its run directory, and let runs/latest name it.

    The directory is made, or an earlier one touched, once all that the run needs is known to serve.

    Raises:
        DfkdEdgeError: any error of the tree.
    """
    from dfkd_edge.pipeline import open_teacher, run_distill
    from dfkd_edge.validation.image_folders import note_strangers

    started = time.monotonic()
    note_slips(plan.class_names.names, reporter)
    if plan.config.data:
        note_strangers(Path(plan.config.data), plan.class_names.names, reporter)
    teacher = open_teacher(plan.config, plan.class_names, reporter)
    with (
        noting_what_is_kept(plan.output),
        open_run(
            plan.output, plan.key, resume=request.resume, exist_ok=request.exist_ok
        ) as run_dir,
        mirrored(run_dir) if request.tensorboard else nullcontext(),
    ):
        reporter.note(f"run directory: {escape(str(plan.output))}")
        reporter = LoggedReporter(reporter, run_dir)
        result = run_distill(plan.config, teacher, plan.pictures, run_dir, reporter)
        run_dir.log(f"done in {time.monotonic() - started:.0f} s")
    point_latest(plan.output.parent, plan.output)
    return result


def run_request(request: DistillRequest) -> None:
    """Run the pipeline in its run directory and show the result.

    Raises:
        DfkdEdgeError: any error of the tree.
    """
    plan = plan_run(request)
    config, output = plan.config, plan.output
    if request.save_config:
        atomic_write(request.save_config, to_toml(config))
    console = make_console(request.quiet)
    if request.dry_run:
        _show_plan(plan, request, console)
        return
    console.print(f"dfkd-edge: {len(plan.class_names)} classes from {escape(config.classes)}")
    started = time.monotonic()
    known = read_stages(output).get("student") if request.resume else None
    with loading_libraries(console):
        prepare_process(config.device, request.num_threads)
        import dfkd_edge.pipeline  # noqa: F401  loaded here, so that the spinner covers it
    result = distill_planned(plan, request, ConsoleReporter(console))
    report = refresh_report(output, console)
    if request.as_json:
        print_json(result, report)
    else:
        bought = ""
        if config.few_shot.images:
            from dfkd_edge.few_shot import what_they_bought

            zero_shot = dataclasses.replace(config, few_shot=FewShotConfig())
            bought = what_they_bought(output, output.parent / run_name(zero_shot, plan.class_names))
        student = read_stages(output).get("student")
        seconds = None if student == known else time.monotonic() - started
        show_result(result, report, seconds, bought)


def run_name(config: PipelineConfig, class_names: ClassNames) -> str:
    """Name the folder of a run: its list, and the start of the hash of its settings."""
    return f"{slug(Path(config.classes).stem)}-{run_key(config, class_names)[:8]}"


def _refuse_early(config: PipelineConfig, class_names: ClassNames) -> None:
    """Find what cannot be met before a library is imported, let alone a student trained."""
    require_teacher(config.teacher.name)
    require_student(config.distillation.student)
    chosen_precision(load_target(config.export.target), config.export)
    if config.data:
        require_pictures(Path(config.data), class_names.names)


def _show_plan(planned: PlannedRun, request: DistillRequest, console: Console) -> None:
    """Estimate time and memory, with the threads that the run would have, and print all."""
    config, class_names = planned.config, planned.class_names
    with loading_libraries(console):
        prepare_process("cpu", request.num_threads)
        from dfkd_edge.plan import make_plan, with_drawings
        from dfkd_edge.synthesis.amortized import uses_drawings

    reporter = ConsoleReporter(console)
    with reporter.stage("timing the networks", 1) as progress:
        plan = make_plan(config, class_names)
        progress.advance()
    if uses_drawings(config.teacher.name, config.synthesis):
        plan = with_drawings(plan, config, class_names, reporter)
    is_done = request.resume and not request.exist_ok and "student" in read_stages(planned.output)
    if request.as_json:
        document = {
            "is_finished": is_done,
            "classes": list(class_names.names),
            "config": dataclasses.asdict(config),
            "plan": plan.document(),
        }
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    else:
        head = [f"{len(class_names)} classes; nothing was run"]
        if is_done:
            head.append(f"finished in {planned.output}: the same command shows it; made anew:")
        head += plan.lines()
        sys.stdout.write("".join(f"# {line}\n" for line in head) + to_toml(config))


def print_json(result: DistillResult, report: str) -> None:
    """Print the result as one JSON document on standard output."""
    document: dict[str, Any] = {
        "run": str(result.run_dir),
        "report": report,
        "student": {"weights": str(result.student.weights), **result.student.settings},
        "prompts": result.prompts.diversity,
        "surrogates": result.surrogates.summary,
        **result.evaluation,
    }
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
