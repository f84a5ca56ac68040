"""The command `benchmark`: every model of a bundle on this machine, with onnxruntime."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

from rich.table import Table
from typer import Option

from dfkd_edge.commands import options as opt
from dfkd_edge.console import ConsoleReporter, make_console, result_console
from dfkd_edge.errors import GateFailedError, UsageError
from dfkd_edge.runtime.counting import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dfkd_edge.results.benchmark import ModelBenchmark


def benchmark(
    bundle: opt.BundleFolder,
    precision: opt.HeldPrecision = None,
    warmup: Annotated[
        float, Option(metavar="MS", help="Milliseconds before timing.", min=0)
    ] = 200.0,
    duration: Annotated[float, Option(metavar="S", help="Seconds of timing.", min=0.01)] = 3.0,
    percentile: Annotated[str, Option(help="Percentiles of latency.")] = "50,90,99",
    threads: opt.Threads = 0,
    device: opt.GraphDevice = "cpu",
    dry_run: opt.DryMeasurement = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Measure latency, throughput, memory and size of every model of a bundle."""
    from dfkd_edge.bundles.opening import find_bundle, open_bundle

    opened = open_bundle(find_bundle(bundle))  # a wrong path is told of before numpy is loaded
    from dfkd_edge.runtime.timing import TimingRequest, parse_percentiles
    from dfkd_edge.validation.benchmark import benchmark_bundle

    try:
        request = TimingRequest(warmup, duration, parse_percentiles(percentile))
    except ValueError as error:
        raise UsageError(
            f"'{percentile}' names no percentiles", where="--percentile", hint="such as 50,90,99"
        ) from error
    if dry_run:
        from dfkd_edge.estimates.bundle import dry_benchmark

        sys.stdout.write(dry_benchmark(opened, precision, request, threads).text(as_json))
        return
    # drawing a bar takes the time of the model that is measured
    reporter = ConsoleReporter(make_console(quiet), refreshes_per_s=1)
    measured = benchmark_bundle(opened, precision, request, threads, device, reporter)
    rows = measured.models
    from dfkd_edge.report.page import refresh_report  # torch; a wrong precision is told of before
    from dfkd_edge.results.codec import to_json

    report = refresh_report(opened.folder, reporter)
    if as_json:
        opt.print_json(to_json(measured))
    else:
        _show_benchmark(rows)
        reporter.note(f"report: {report}")
    wrong = [row.precision for row in rows if not row.is_golden]
    if wrong:
        raise GateFailedError(
            f"{wrong[0]} does not give the golden logits here",
            where=str(opened.folder),
            hint="python3 check.pyz names the cause",
        )


def _show_benchmark(rows: Sequence[ModelBenchmark]) -> None:
    console = result_console()
    names = list(rows[0].latency.percentile_ms)
    units = ("images/s", "size MiB", "peak MiB", "model MiB")
    table = Table("model", *(f"{name} ms" for name in names), *units)
    for row in rows:
        times = [f"{row.latency.percentile_ms[name]:.3f}" for name in names]
        rate, size_mib = f"{row.latency.throughput_per_s:.1f}", f"{row.size_bytes / (1 << 20):.2f}"
        peak, of_model = f"{row.peak_memory_mib:.0f}", f"{row.model_memory_mib:.0f}"
        table.add_row(row.precision, *times, rate, size_mib, peak, of_model)
    console.print(table)
    first = rows[0]
    console.print(
        f"[dim]{first.cpu}, {counted(first.threads, 'thread')}, {first.backend}, batch "
        f"{first.latency.batch}, end to end without reading pictures[/dim]"
    )
    for row in rows:
        for caveat in row.latency.caveats:
            console.print(f"[yellow]note:[/yellow] {row.precision}: {caveat}")
