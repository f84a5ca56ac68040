"""What `export`, `check` and `run` do between their flags and the stages."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from dfkd_edge.calibration_need import shortage_of
from dfkd_edge.class_names import read_class_names
from dfkd_edge.config import PipelineConfig
from dfkd_edge.config_file import load_config, to_toml
from dfkd_edge.console import ConsoleReporter, loading_libraries, make_console
from dfkd_edge.deployment.precision import chosen_precision, refuse_impossible
from dfkd_edge.deployment.workplace import WAIT_OR_STOP
from dfkd_edge.distill_command import DistillRequest, run_request
from dfkd_edge.errors import ConfigError
from dfkd_edge.export_view import (
    check_plan_lines,
    show_bundle,
    show_ladder,
    show_panel,
    verdict_lines,
)
from dfkd_edge.kept_checks import check_file
from dfkd_edge.plugins import load_target
from dfkd_edge.process import prepare_host
from dfkd_edge.real_pictures import pictures_below
from dfkd_edge.report_command import keep_document, refresh_report
from dfkd_edge.run_dir import find_run, require_stages, require_writable
from dfkd_edge.run_lock import refuse_run_in_use
from dfkd_edge.runtime.bundle_files import VALIDATION
from dfkd_edge.runtime_faults import require_folder, require_pictures

if TYPE_CHECKING:
    from rich.console import Console

    from dfkd_edge.interfaces import Reporter
    from dfkd_edge.runtime.bundle_files import Bundle
    from dfkd_edge.target_profile import TargetProfile


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportRequest:
    """The flags of `dfkd-edge export`."""

    run: Path
    overrides: tuple[str, ...]
    """`export.key=value` texts; what is not named keeps the run's setting."""
    data: str
    output: Path | None
    exist_ok: bool
    dry_run: bool
    as_json: bool
    quiet: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckRequest:
    """The flags of `dfkd-edge check`."""

    bundle: Path
    data: str
    max_drop: float | None
    as_json: bool
    quiet: bool
    dry_run: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRequest:
    """The flags of `dfkd-edge run`."""

    config: Path
    overrides: tuple[str, ...]
    output: Path | None
    runs: Path
    exist_ok: bool
    dry_run: bool
    as_json: bool
    quiet: bool


@dataclass(frozen=True, slots=True)
class PlannedExport:
    """A request that can be met."""

    run: Path
    config: PipelineConfig
    target: TargetProfile
    folder: Path
    """The bundle."""


def plan_export(request: ExportRequest) -> PlannedExport:
    """Settle configuration, target and folder, before any heavy library is imported.

    What no run can mend is judged before the run is looked for.

    Raises:
        UsageError: the request cannot be met.
        RunDirError: another bundle is there, or another process works in the run.
        EnvironmentLackingError: the bundle cannot be written.
    """
    _settled(None, request.overrides)
    if request.data:
        require_folder(Path(request.data))
    if request.output:
        _require_free(request.output)
    run = find_run(request.run)
    if not request.dry_run:
        refuse_run_in_use(run, WAIT_OR_STOP)
    require_stages(run, {"surrogates", "student"})
    config, target = _settled(run / "config.toml", request.overrides)
    refuse_impossible(target, config.export)
    shortage = shortage_of(run, config.export)
    if shortage:
        raise shortage.error()
    if request.data:
        require_pictures(Path(request.data), read_class_names(run / "classes.txt").names)
    from dfkd_edge.deployment.replacement import refuse_other_bundle, refuse_place_in_other_run

    folder = request.output or run / "bundles" / target.name
    refuse_place_in_other_run(folder, run)
    if not request.output:
        _require_free(folder)
    if not request.exist_ok:
        refuse_other_bundle(folder, run, config, request.data)
    return PlannedExport(run, config, target, folder)


def _require_free(folder: Path) -> None:
    from dfkd_edge.deployment.bundle import refuse_foreign

    refuse_foreign(folder)
    require_writable(folder)


def export_planned(plan: PlannedExport, request: ExportRequest, reporter: Reporter) -> Bundle:
    """Convert, prove and bundle; the manifest's status says whether the gate passed.

    Raises:
        DfkdEdgeError: any error of the tree but that of the gate.
    """
    from dfkd_edge.pipeline import run_export_stage

    return run_export_stage(
        plan.run, plan.config, plan.folder, request.data, request.exist_ok, reporter
    )


def run_export(request: ExportRequest) -> None:
    """Export a run, show the ladder, and fail when the gate did.

    Raises:
        GateFailedError: INT8 lost more than allowed; the bundle is kept.
        DfkdEdgeError: any other error of the tree.
    """
    plan = plan_export(request)
    run, config, target = plan.run, plan.config, plan.target
    precision = chosen_precision(target, config.export)
    console = make_console(request.quiet)
    if request.dry_run:
        _show_plan(plan, request, console)
        return
    console.print(f"dfkd-edge: {escape(str(run))} -> {escape(target.name)}, {precision}")
    if target.no_int8_reason and precision != "int8":
        console.print(f"  no INT8: {escape(target.no_int8_reason)}")
    with loading_libraries(console):
        prepare_host()
        import dfkd_edge.pipeline  # noqa: F401  loaded here, so that the spinner covers it
    bundle = export_planned(plan, request, ConsoleReporter(console))
    document = json.loads((bundle.folder / VALIDATION).read_text(encoding="utf-8"))
    report = refresh_report(bundle.folder, console)
    summary = {"bundle": str(bundle.folder), "status": bundle.manifest["status"], **document}
    if request.as_json:
        sys.stdout.write(json.dumps({**summary, "report": report}, ensure_ascii=False) + "\n")
    else:
        show_ladder(document)
        show_bundle(bundle, document, report)
    from dfkd_edge.validation.gate import require_passed

    require_passed(document["gate"], bundle.folder)


def measure_bundle(request: CheckRequest, console: Console) -> tuple[Bundle, dict[str, Any]]:
    """Climb the ladder on a bundle, and keep what was measured in it.

    Returns:
        The bundle and the document of `check --json` without the report.

    Raises:
        DfkdEdgeError: any error of the tree but that of the gate.
    """
    bundle = _checked_bundle(request)
    with loading_libraries(console):
        prepare_host()
        from dfkd_edge.deployment.check import check_bundle

    document = check_bundle(bundle, request.data, request.max_drop, ConsoleReporter(console))
    keep_document(bundle.folder / check_file(document), document, console)
    return bundle, document


def _checked_bundle(request: CheckRequest) -> Bundle:
    """The bundle of a request that can be met, found before any heavy library is imported."""
    from dfkd_edge.deployment.opening import find_bundle, open_bundle

    bundle = open_bundle(find_bundle(request.bundle))
    if request.data:
        require_pictures(Path(request.data), bundle.classes)
    return bundle


def run_check(request: CheckRequest) -> None:
    """Climb the ladder on a bundle, show it, and fail when the gate does.

    Raises:
        GateFailedError: the last rung lost more than allowed.
        DfkdEdgeError: any other error of the tree.
    """
    console = make_console(request.quiet)
    if request.dry_run:
        _show_check_plan(request, ConsoleReporter(console))
        return
    bundle, document = measure_bundle(request, console)
    report = refresh_report(bundle.folder, console)
    if request.as_json:
        sys.stdout.write(json.dumps({**document, "report": report}, ensure_ascii=False) + "\n")
    else:
        show_ladder(document)
        lines = [*verdict_lines(document), f"bundle      {bundle.folder}", f"report      {report}"]
        show_panel(lines, document, "python3 check.pyz in the bundle, on the device")
    from dfkd_edge.validation.gate import require_passed

    require_passed(document["gate"], bundle.folder)


def _show_check_plan(request: CheckRequest, reporter: Reporter) -> None:
    from dfkd_edge.deployment.check_plan import plan_check

    plan = plan_check(_checked_bundle(request), request.data, request.max_drop, reporter)
    if request.as_json:
        sys.stdout.write(json.dumps(plan, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in check_plan_lines(plan)))


def run_all(request: RunRequest) -> None:
    """Distill and export from one file.

    Raises:
        ConfigError: a setting is wrong, found before anything is run.
        DfkdEdgeError: any other error of the tree.
    """
    config = load_config(request.config, request.overrides)
    refuse_impossible(load_target(config.export.target), config.export)
    distilled = DistillRequest(
        config_path=request.config,
        overrides=request.overrides,
        output=request.output,
        runs=request.runs,
        num_threads=None,
        resume=True,
        exist_ok=request.exist_ok,
        save_config=None,
        dry_run=request.dry_run,
        as_json=False,
        quiet=request.quiet,
    )
    if request.dry_run:
        run_request(dataclasses.replace(distilled, as_json=request.as_json))
        return
    with _stdout_to_stderr(request.as_json):
        run_request(distilled)
    latest = request.output or request.runs / "latest"  # its config.toml holds the overrides
    run_export(
        ExportRequest(
            run=latest,
            overrides=(),
            data=config.data,
            output=None,
            exist_ok=request.exist_ok,
            dry_run=False,
            as_json=request.as_json,
            quiet=request.quiet,
        )
    )


def _stdout_to_stderr(active: bool) -> Any:
    import contextlib

    return contextlib.redirect_stdout(sys.stderr) if active else contextlib.nullcontext()


def _settled(path: Path | None, overrides: tuple[str, ...]) -> tuple[PipelineConfig, TargetProfile]:
    """The run's settings with this export's on top; what made the student cannot be changed.

    Args:
        path: config.toml of the run; None judges what this export names by itself.
        overrides: `export.key=value` texts.
    """
    foreign = [text for text in overrides if not text.strip().startswith("export.")]
    if foreign:
        raise ConfigError(
            f"'{foreign[0]}' is no setting of export",
            where="--set",
            hint="settings of export start with export., such as export.percentile=99.9",
        )
    config = load_config(path, overrides)
    target = load_target(config.export.target)
    chosen_precision(target, config.export)
    if config.export.calibration_data:
        pictures_below(Path(config.export.calibration_data))
    return config, target


def _show_plan(plan: PlannedExport, request: ExportRequest, console: Console) -> None:
    """Estimate time and memory, and print them with the settings."""
    with loading_libraries(console):
        prepare_host()
        from dfkd_edge.deployment.export_estimate import estimate_export
        from dfkd_edge.finished_run import open_finished_run

        run = open_finished_run(plan.run)
        estimate = estimate_export(run, plan.config, plan.target, request.data)
    if request.as_json:
        document = {
            "run": str(plan.run),
            "target": plan.target.name,
            "bundle": str(plan.folder),
            "estimate": estimate.document(),
            "config": dataclasses.asdict(plan.config.export),
        }
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
        return
    settings = to_toml(PipelineConfig(export=plan.config.export))
    about = [f"{plan.run} -> {plan.folder} for {plan.target.name}; nothing was run"]
    lines = "".join(f"# {line}\n" for line in (*about, *estimate.lines()))
    sys.stdout.write(lines + settings[settings.index("[export]") :])
