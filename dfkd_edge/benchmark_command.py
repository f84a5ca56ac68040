"""The command `benchmark`: every model of a bundle on this machine, with onnxruntime."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dfkd_edge.errors import GateFailedError, UsageError
from dfkd_edge.options import (
    AsJson,
    BundleFolder,
    DryMeasurement,
    HeldPrecision,
    Quiet,
    Threads,
    Verbose,
)
from dfkd_edge.report_command import keep_document, refresh_report
from dfkd_edge.runtime.counting import counted

if TYPE_CHECKING:
    from rich.console import Console

    from dfkd_edge.runtime.bundle_files import Bundle
    from dfkd_edge.runtime.timing import TimingRequest
    from dfkd_edge.validation.latency import ModelBenchmark


def benchmark(
    bundle: BundleFolder,
    precision: HeldPrecision = None,
    warmup: Annotated[
        float, typer.Option(metavar="MS", help="Milliseconds before timing.", min=0)
    ] = 200.0,
    duration: Annotated[
        float, typer.Option(metavar="S", help="Seconds of timing.", min=0.01)
    ] = 3.0,
    percentile: Annotated[str, typer.Option(help="Percentiles of latency.")] = "50,90,99",
    threads: Threads = 0,
    dry_run: DryMeasurement = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure latency, throughput, memory and size of every model of a bundle."""
    from dfkd_edge.console import make_console
    from dfkd_edge.deployment.opening import find_bundle, open_bundle

    opened = open_bundle(find_bundle(bundle))  # a wrong path is told of before numpy is loaded
    from dfkd_edge.runtime.timing import TimingRequest, parse_percentiles

    try:
        request = TimingRequest(warmup, duration, parse_percentiles(percentile))
    except ValueError as error:
        raise UsageError(
            f"'{percentile}' names no percentiles", where="--percentile", hint="such as 50,90,99"
        ) from error
    console = make_console(quiet)
    if dry_run:
        _show_plan(plan_benchmark(opened, precision, request, threads), as_json)
        return
    rows = benchmark_bundle(opened, precision, request, threads, console)
    document = benchmark_document(opened, rows)
    report = refresh_report(opened.folder, console)
    if as_json:
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    else:
        _show_benchmark(rows)
        console.print(f"report: {report}", markup=False)
    wrong = [row.precision for row in rows if not row.is_golden]
    if wrong:
        raise GateFailedError(
            f"{wrong[0]} does not give the golden logits here",
            where=str(opened.folder),
            hint="python3 check.pyz names the cause",
        )


def benchmark_bundle(
    bundle: Bundle,
    precision: str | None,
    request: TimingRequest,
    threads: int,
    console: Console,
) -> list[ModelBenchmark]:
    """Measure every model of a bundle, or that of one precision, and keep it for the report.

    Raises:
        UsageError: the bundle holds no such model.
    """
    from dfkd_edge.console import ConsoleReporter
    from dfkd_edge.runtime.bundle_files import BENCHMARK
    from dfkd_edge.validation.latency import benchmark_model, doubt_slow_int8

    names = _timed(bundle, precision)
    rows = []
    reporter = ConsoleReporter(console, refreshes_per_s=1)  # drawing takes the model's time
    stage = f"timing {' and '.join(names)} for {request.duration_s:g} s{' each' * (len(names) > 1)}"
    with reporter.stage(stage, len(names)) as progress:
        for name in names:
            rows.append(benchmark_model(bundle.folder, name, request, threads))
            progress.advance()
    doubt_slow_int8(rows, str(bundle.manifest.get("backend")))
    keep_document(bundle.folder / BENCHMARK, benchmark_document(bundle, rows), console)
    return rows


def plan_benchmark(
    bundle: Bundle, precision: str | None, request: TimingRequest, threads: int
) -> dict[str, Any]:
    """Tell what a benchmark would measure; the document of `benchmark --dry-run --json`.

    Raises:
        UsageError: the bundle holds no such model.
    """
    from dfkd_edge.runtime.device import num_cores
    from dfkd_edge.runtime.doubts import graph_notes

    names = _timed(bundle, precision)
    sizes = {name: bundle.model_path(name).stat().st_size for name in names}
    return {
        "bundle": str(bundle.folder),
        "target": bundle.manifest["target"],
        "models": [{"precision": name, "size_bytes": size} for name, size in sizes.items()],
        "num_golden": len(bundle.golden()["images"]),
        "threads": threads or num_cores(),
        "batch": bundle.batch[0],
        **dataclasses.asdict(request),
        "notes": graph_notes(bundle.precision, bundle.manifest["models"]),
        "min_seconds": len(names) * (request.warmup_ms / 1e3 + request.duration_s),
    }


def benchmark_document(bundle: Bundle, rows: list[ModelBenchmark]) -> dict[str, Any]:
    """Collect the document of `benchmark --json`."""
    return {
        "bundle": str(bundle.folder),
        "target": bundle.manifest["target"],
        "models": [dataclasses.asdict(row) for row in rows],
    }


def _timed(bundle: Bundle, precision: str | None) -> list[str]:
    from dfkd_edge.deployment.opening import held_precision

    return [held_precision(bundle, precision)] if precision else list(bundle.manifest["models"])


def _show_plan(plan: dict[str, Any], as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(plan, ensure_ascii=False) + "\n")
        return
    work = (
        f"{plan['num_golden']} golden images, {plan['warmup_ms']:g} ms of warm-up, "
        f"{plan['duration_s']:g} s of timing"
    )
    sizes = {row["precision"]: row["size_bytes"] / (1 << 20) for row in plan["models"]}
    lines = [
        f"{plan['bundle']} for {plan['target']}; nothing was run",
        *(f"{name:<8}  {size_mib:.2f} MiB: {work}" for name, size_mib in sizes.items()),
        f"how       {counted(plan['threads'], 'thread')}, batch {plan['batch']}",
        f"time      {plan['min_seconds']:g} s, and the start of a process for each model",
        *(f"note      {note}" for note in plan["notes"]),
    ]
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def _show_benchmark(rows: list[ModelBenchmark]) -> None:
    from rich.table import Table

    from dfkd_edge.console import result_console

    console = result_console()
    names = list(rows[0].latency["percentile_ms"])
    units = ("images/s", "size MiB", "peak MiB", "model MiB")
    table = Table("model", *(f"{name} ms" for name in names), *units)
    for row in rows:
        times = [f"{row.latency['percentile_ms'][name]:.3f}" for name in names]
        size_mib = row.size_bytes / (1 << 20)
        table.add_row(
            row.precision,
            *times,
            f"{row.latency['throughput_per_s']:.1f}",
            f"{size_mib:.2f}",
            f"{row.peak_memory_mib:.0f}",
            f"{row.model_memory_mib:.0f}",
        )
    console.print(table)
    first = rows[0]
    console.print(
        f"[dim]{first.cpu}, {counted(first.threads, 'thread')}, {first.backend}, batch "
        f"{first.latency['batch']}, end to end without reading pictures[/dim]"
    )
    for row in rows:
        for doubt in row.latency["doubts"]:
            console.print(f"[yellow]note:[/yellow] {row.precision}: {doubt}")
