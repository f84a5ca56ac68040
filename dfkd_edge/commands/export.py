"""The command `export`: its flags, and what it shows of the plan and the bundle."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Context, Option

from dfkd_edge.commands import options as opt
from dfkd_edge.config.settings import LATEST
from dfkd_edge.console import ConsoleReporter, loading_libraries, make_console, result_console
from dfkd_edge.errors import ConfigError

if TYPE_CHECKING:
    from dfkd_edge.preflight import ExportRequest


def _batch_sizes(text: str | None) -> list[int] | None:
    """Read `--batch` before the settings are made of it, which take a list."""
    try:
        return [int(part) for part in text.split(",")] if text is not None else None
    except ValueError as error:
        raise ConfigError(
            f"'{text}' names no batch sizes", where="--batch", hint="such as 1 or 1,4,8"
        ) from error


def _names(texts: list[str] | None) -> list[str] | None:
    """Read `--runtime a,b` as `--runtime a --runtime b`."""
    if texts is None:
        return None
    return [name for text in texts for name in map(str.strip, text.split(",")) if name]


def _lower(text: str | None) -> str | None:
    """Read `FP16` as `fp16`."""
    return text and text.lower()


def export(
    context: Context,
    run: Annotated[Path, Argument(metavar="[RUN]", help="Run directory.")] = LATEST,
    target: Annotated[
        opt.Text,
        Option(help="A name of `targets list` or a TOML file (default: jetson, an Orin Nano 8GB)."),
    ] = None,
    precision: Annotated[
        opt.Text,
        Option(callback=_lower, help="fp32, fp16, int8 or auto, the target's best (default)."),
    ] = None,
    batch: Annotated[
        opt.Text,
        Option(callback=_batch_sizes, help="1, or 1,4,8 for a dynamic batch (default: 1)."),
    ] = None,
    opset: Annotated[opt.Number, Option(help="ONNX opset (default: the target's).")] = None,
    calib_size: Annotated[opt.Number, Option(help="Calibration images (default: 512).")] = None,
    calib_data: Annotated[
        opt.File, Option(help="Real pictures to calibrate on, any folders.")
    ] = None,
    max_drop: opt.MaxDrop = None,
    repair: Annotated[
        bool | None, Option("--repair/--no-repair", help="Repair INT8 when it misses the gate.")
    ] = None,
    runtime: Annotated[
        opt.Texts,
        Option(callback=_names, help="Names of `runtimes list`: deepstream,triton; repeatable."),
    ] = None,
    data: opt.Data = None,
    device: opt.ProofDevice = None,
    output: Annotated[
        opt.File, Option("--output", "-o", help="The bundle (default: RUN/bundles/TARGET).")
    ] = None,
    exist_ok: opt.ExistOk = False,
    sign: opt.Sign = None,
    set_: opt.Set = None,
    dry_run: opt.DryRun = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Turn a student into a bundle: convert, measure every conversion, gate; exit 3 if it fails.

    With a GPU and the extra `tensorrt` here, the engine is built and measured too (see `doctor`).
    """
    from dfkd_edge.preflight import ExportRequest

    request = ExportRequest(
        run=run,
        settings=opt.given_settings(context, "export."),
        data=str(data) if data else "",
        output=output,
        exist_ok=exist_ok,
        dry_run=dry_run,
        device=device or "",
        sign=sign,
    )
    run_export(request, as_json=as_json, quiet=quiet)


def run_export(request: ExportRequest, *, as_json: bool, quiet: bool) -> None:
    """Check a request, run it, show the ladder, and fail when the gate did; `run` calls it too.

    Raises:
        GateFailedError: INT8 lost more than allowed; the bundle is kept.
        DfkdEdgeError: any other error of the tree.
    """
    from dfkd_edge.conversion.precision import chosen_precision
    from dfkd_edge.machine.process import prepare_host
    from dfkd_edge.preflight import plan_export

    plan = plan_export(request)
    target, precision = plan.target, chosen_precision(plan.target, plan.config.export)
    console = make_console(quiet)
    reporter = ConsoleReporter(console)
    if request.dry_run:
        with loading_libraries(console):
            prepare_host()
            from dfkd_edge.estimates.export import dry_export
        sys.stdout.write(dry_export(plan, reporter).text(as_json))
        return
    title = target.facts.get("title")  # `nano` is no Orin Nano
    named = f"{target.name} ({title.value})" if title else target.name
    reporter.note(f"dfkd-edge: {plan.run} -> {named}, {precision}")
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
        opt.print_json({**proof.to_json(), **head, "report": report})
    else:
        from dfkd_edge.commands.ladder_view import bundle_panel, show_ladder

        show_ladder(proof)
        result_console().print(bundle_panel(bundle, proof, report))
    require_passed(bundle)
