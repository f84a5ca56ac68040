"""What `export`, `check` and `run` do between their flags and the stages."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from dfkd_edge.class_names import read_class_names
from dfkd_edge.config import ExportConfig, PipelineConfig, load_config, to_toml
from dfkd_edge.console import ConsoleReporter, loading_libraries, make_console, result_console
from dfkd_edge.deployment.precision import chosen_precision
from dfkd_edge.distill_command import DistillRequest, keep_freed_memory, run_request
from dfkd_edge.errors import ConfigError
from dfkd_edge.plugins import load_target
from dfkd_edge.report_command import keep_document, refresh_report
from dfkd_edge.run_dir import find_run, require_stages
from dfkd_edge.runtime.bundle_files import CHECK_RESULT
from dfkd_edge.runtime_faults import require_pictures

if TYPE_CHECKING:
    from dfkd_edge.runtime.bundle_files import Bundle


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


def run_export(request: ExportRequest) -> None:
    """Export a run, show the ladder, and fail when the gate did.

    Raises:
        GateFailedError: INT8 lost more than allowed; the bundle is kept.
        DfkdEdgeError: any other error of the tree.
    """
    run = find_run(request.run)
    require_stages(run, {"surrogates", "student"})
    config = _resolved(run, request.overrides)
    target = load_target(config.export.target)
    precision = chosen_precision(target, config.export)
    folder = request.output or run / "bundles" / target.name
    if request.data:
        require_pictures(Path(request.data), read_class_names(run / "classes.txt").names)
    console = make_console(request.quiet)
    if request.dry_run:
        _show_plan(config.export, target.name, run, folder, request)
        return
    console.print(f"dfkd-edge: {escape(str(run))} -> {escape(target.name)}, {precision}")
    if target.no_int8_reason and precision != "int8":
        console.print(f"  no INT8: {escape(target.no_int8_reason)}")
    begun = time.monotonic()
    with loading_libraries(console):
        _prepare()
        from dfkd_edge.pipeline import run_export_stage

    bundle = run_export_stage(
        run, config, folder, request.data, request.exist_ok, ConsoleReporter(console)
    )
    document = json.loads((bundle.folder / "validation.json").read_text(encoding="utf-8"))
    report = refresh_report(bundle.folder, console)
    summary = {"bundle": str(bundle.folder), "status": bundle.manifest["status"], **document}
    if request.as_json:
        sys.stdout.write(json.dumps({**summary, "report": report}, ensure_ascii=False) + "\n")
    else:
        show_ladder(document)
        _show_bundle(bundle, document, report, time.monotonic() - begun)
    from dfkd_edge.validation.gate import require_passed

    require_passed(document["gate"], bundle.folder)


def run_check(request: CheckRequest) -> None:
    """Climb the ladder on a bundle and fail when the gate does.

    Raises:
        GateFailedError: the last rung lost more than allowed.
        DfkdEdgeError: any other error of the tree.
    """
    from dfkd_edge.deployment.bundle import find_bundle, open_bundle

    console = make_console(request.quiet)
    bundle = open_bundle(find_bundle(request.bundle))
    if request.data:
        require_pictures(Path(request.data), bundle.classes)
    with loading_libraries(console):
        _prepare()
        from dfkd_edge.deployment.check import check_bundle
        from dfkd_edge.validation.gate import require_passed

    document = check_bundle(bundle, request.data, request.max_drop, ConsoleReporter(console))
    keep_document(bundle.folder / CHECK_RESULT, document, console)
    report = refresh_report(bundle.folder, console)
    if request.as_json:
        sys.stdout.write(json.dumps({**document, "report": report}, ensure_ascii=False) + "\n")
    else:
        show_ladder(document)
        lines = [*_verdict_lines(document), f"bundle      {bundle.folder}", f"report      {report}"]
        _show_panel(lines, document, "python3 check.pyz in the bundle, on the device")
    require_passed(document["gate"], bundle.folder)


def run_all(request: RunRequest) -> None:
    """Distill, export and check from one file.

    Raises:
        ConfigError: a setting is wrong, found before anything is run.
        DfkdEdgeError: any other error of the tree.
    """
    config = load_config(request.config, request.overrides)
    chosen_precision(load_target(config.export.target), config.export)
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
            exist_ok=True,
            dry_run=False,
            as_json=request.as_json,
            quiet=request.quiet,
        )
    )


def _stdout_to_stderr(active: bool) -> Any:
    import contextlib

    return contextlib.redirect_stdout(sys.stderr) if active else contextlib.nullcontext()


def _prepare() -> None:
    keep_freed_memory()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _resolved(run: Path, overrides: tuple[str, ...]) -> PipelineConfig:
    """The run's settings with this export's on top; what made the student cannot be changed."""
    foreign = [text for text in overrides if not text.strip().startswith("export.")]
    if foreign:
        raise ConfigError(
            f"'{foreign[0]}' is no setting of export",
            where="--set",
            hint="settings of export start with export., such as export.percentile=99.9",
        )
    return load_config(run / "config.toml", overrides)


def _show_plan(
    config: ExportConfig, target: str, run: Path, folder: Path, request: ExportRequest
) -> None:
    if request.as_json:
        document = {
            "run": str(run),
            "target": target,
            "bundle": str(folder),
            "config": dataclasses.asdict(config),
        }
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
        return
    settings = to_toml(PipelineConfig(export=config))
    section = settings[settings.index("[export]") :]
    sys.stdout.write(f"# {run} -> {folder} for {target}; nothing was run\n{section}")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def show_ladder(document: dict[str, Any]) -> None:
    """Print the rungs side by side: domains, then size and latency; fits 80 columns."""
    measure, rungs = document["measure"], document["rungs"]
    title = "top-1" if measure == "top1" else "agreement with the teacher"
    table = Table(title=f"conversion ladder: {title}", title_justify="left", box=SIMPLE_HEAD)
    table.pad_edge = False
    table.add_column("", overflow="fold")
    for rung in rungs:
        table.add_column(rung["name"], justify="right", no_wrap=True)
    for domain in rungs[0]["domains"]:
        figures = (_percent(rung["domains"][domain][measure]) for rung in rungs)
        table.add_row(escape(domain), *figures)
    for name, figure in LADDER_ROWS.items():
        table.add_row(name, *(figure(rung, measure) for rung in rungs), style="dim")
    result_console().print(table)


def _mean_divergence(rung: dict[str, Any], _measure: str) -> str:
    parts = rung["domains"].values()
    divergences = [p["kl_to_previous"] for p in parts if p["kl_to_previous"] is not None]
    return f"{sum(divergences) / len(divergences):.4f}" if divergences else "-"


def _mean_measure(rung: dict[str, Any], measure: str) -> str:
    figures = [part[measure] for part in rung["domains"].values()]
    return _percent(sum(figures) / len(figures))


LADDER_ROWS: dict[str, Callable[[dict[str, Any], str], str]] = {
    "mean": _mean_measure,
    "KL to the left": _mean_divergence,
    "NaN": lambda rung, _: str(sum(part["num_nan"] for part in rung["domains"].values())),
    "MiB": lambda rung, _: f"{rung['size_bytes'] / 2**20:.2f}" if rung["size_bytes"] else "-",
    "ms here": lambda rung, _: f"{rung['latency_ms']:.2f}" if rung["latency_ms"] else "-",
}


def _verdict_lines(document: dict[str, Any]) -> list[str]:
    gate = document["gate"]
    charged = document["charged_to"]
    loss = next((entry for entry in document["losses"] if entry["rung"] == charged), None)
    charge = "no conversion loses anything"
    if loss:
        noise = "within noise" if loss["within_noise"] else f"p = {loss['p_value']:.2g}"
        charge = f"{charged} loses {loss['drop'] * 100:.2f} points in the mean, {noise}"
    return [
        f"gate        {'passed' if gate['passed'] else 'FAILED'}: {gate['sentence']}",
        f"charged to  {charge}",
        f"images      {document['images']}",
    ]


def _show_bundle(bundle: Bundle, document: dict[str, Any], report: str, seconds: float) -> None:
    manifest = bundle.manifest
    lines = [*_verdict_lines(document)]
    rescue = manifest["provenance"].get("rescue")
    if rescue:
        count = len(rescue["repair"]["float_nodes"])
        tuned = rescue["finetune"]
        text = f"{count} of {rescue['repair']['num_quantizable']} layers put back to float"
        text += f", then fine-tuned for {tuned['num_steps']} steps" if tuned else ""
        lines.append(f"repair      {text}")
    warnings = manifest["provenance"].get("lint_warnings", [])
    if warnings:
        rules = ", ".join(sorted({w["rule"] for w in warnings}))
        lines.append(f"lint        {len(warnings)} warnings of rules {rules}, in manifest.json")
    lines += [
        f"bundle      {bundle.folder}",
        f"report      {report}",
        f"precision   {manifest['precision']} for {manifest['target']}",
        f"time        {seconds:.0f} s",
    ]
    _show_panel(
        lines, document, f"copy {bundle.folder.name}/ to the device: python3 check.pyz proves it"
    )


def _show_panel(lines: list[str], document: dict[str, Any], next_step: str) -> None:
    passed = document["gate"]["passed"]
    if document["measure"] == "agreement":
        lines.append("accuracy    add --data DIR with labelled pictures to measure top-1")
    lines.append(f"next        {next_step}")
    result_console().print(
        Panel(
            escape("\n".join(lines)),
            title="bundle proven" if passed else "gate failed",
            title_align="left",
            expand=False,
            border_style="green" if passed else "red",
        )
    )
