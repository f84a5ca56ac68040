"""The command `export`: its flags, and what it shows of the plan and the bundle."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfkd_edge.commands.options import (
    AsJson,
    Data,
    DryRun,
    ExistOk,
    File,
    MaxDrop,
    Number,
    Quiet,
    Set,
    Switch,
    Text,
    Verbose,
)
from dfkd_edge.config.file import settings_of
from dfkd_edge.config.settings import LATEST

if TYPE_CHECKING:
    from rich.console import Console

    from dfkd_edge.preflight import ExportPlan, ExportRequest


def export(
    run: Annotated[
        Path, typer.Argument(metavar="[RUN]", help="Run directory.", show_default=str(LATEST))
    ] = LATEST,
    target: Annotated[
        Text, typer.Option(help="A name of `targets list` or a TOML file (default: jetson).")
    ] = None,
    precision: Annotated[
        Text, typer.Option(help="fp32, fp16 or int8 (default: the target's best).")
    ] = None,
    batch: Annotated[
        Text, typer.Option(help="1, or 1,4,8 for a dynamic batch (default: 1).")
    ] = None,
    opset: Annotated[Number, typer.Option(help="ONNX opset (default: the target's).")] = None,
    calib_size: Annotated[Number, typer.Option(help="Calibration images (default: 512).")] = None,
    calib_data: Annotated[
        File, typer.Option(help="Real pictures to calibrate on, any folders.")
    ] = None,
    max_drop: MaxDrop = None,
    repair: Annotated[
        Switch,
        typer.Option("--repair/--no-repair", help="Mend INT8 when it misses the gate."),
    ] = None,
    data: Data = None,
    output: Annotated[
        File, typer.Option("--output", "-o", help="The bundle (default: RUN/bundles/TARGET).")
    ] = None,
    exist_ok: ExistOk = False,
    set_: Set = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Turn a student into a bundle: convert, measure every conversion, gate; exit 3 if it fails.

    With a GPU and the extra `tensorrt` here, the engine is built and measured too (see `doctor`).
    """
    flags = {
        "target": target,
        "precision": precision,
        "opset": opset,
        "calib_size": calib_size,
        "calib_data": calib_data,
        "max_drop": max_drop,
        "repair": repair,
        "batch": _batch(batch),
    }
    from dfkd_edge.preflight import ExportRequest

    request = ExportRequest(
        run=run,
        settings=settings_of(set_ or (), flags, "export."),
        data=str(data) if data else "",
        output=output,
        exist_ok=exist_ok,
        dry_run=dry_run,
    )
    run_export(request, as_json=as_json, quiet=quiet)


def run_export(request: ExportRequest, *, as_json: bool, quiet: bool) -> None:
    """Check a request, run it, show the ladder, and fail when the gate did; `run` calls it too.

    Raises:
        GateFailedError: INT8 lost more than allowed; the bundle is kept.
        DfkdEdgeError: any other error of the tree.
    """
    from dfkd_edge.console import ConsoleReporter, loading_libraries, make_console
    from dfkd_edge.conversion.precision import chosen_precision
    from dfkd_edge.machine.process import prepare_host
    from dfkd_edge.preflight import plan_export

    plan = plan_export(request)
    target, precision = plan.target, chosen_precision(plan.target, plan.config.export)
    console = make_console(quiet)
    if request.dry_run:
        _show_plan(plan, as_json, console)
        return
    reporter = ConsoleReporter(console)
    reporter.note(f"dfkd-edge: {plan.run} -> {target.name}, {precision}")
    if target.no_int8_reason and precision != "int8":
        reporter.note(f"  no INT8: {target.no_int8_reason}")
    with loading_libraries(console):
        prepare_host()
        from dfkd_edge import pipeline
        from dfkd_edge.report.page import refresh_report
        from dfkd_edge.results.kept import proof_of, require_passed
    bundle = pipeline.export(plan, reporter)
    proof = proof_of(bundle)
    report = refresh_report(bundle.folder, reporter)
    if as_json:
        head = {"bundle": str(bundle.folder), "status": bundle.manifest.status}
        document = {**proof.to_json(), **head, "report": report}
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    else:
        from dfkd_edge.commands.ladder_view import bundle_panel, show_ladder
        from dfkd_edge.console import result_console

        show_ladder(proof)
        result_console().print(bundle_panel(bundle, proof, report))
    require_passed(bundle)


def _show_plan(plan: ExportPlan, as_json: bool, console: Console) -> None:
    """Estimate time and memory, and print them with the settings."""
    from dfkd_edge.console import ConsoleReporter, loading_libraries
    from dfkd_edge.machine.process import prepare_host

    with loading_libraries(console):
        prepare_host()
        from dfkd_edge.estimates.export import dry_export
    sys.stdout.write(dry_export(plan, ConsoleReporter(console)).text(as_json))


def _batch(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        from dfkd_edge.errors import ConfigError

        raise ConfigError(
            f"'{text}' names no batch sizes", where="--batch", hint="such as 1 or 1,4,8"
        ) from error
