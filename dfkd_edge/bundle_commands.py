"""The commands `benchmark` and `predict`: a bundle on this machine, with onnxruntime."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dfkd_edge.errors import ArtifactError, GateFailedError, UsageError
from dfkd_edge.options import AsJson, DryMeasurement, Quiet, Text, Verbose
from dfkd_edge.report_command import keep_document, refresh_report
from dfkd_edge.runtime.counting import counted

if TYPE_CHECKING:
    from rich.console import Console

    from dfkd_edge.runtime.bundle_files import Bundle
    from dfkd_edge.runtime.confidence import Confidence
    from dfkd_edge.runtime.timing import TimingRequest
    from dfkd_edge.validation.latency import ModelBenchmark

BundleFolder = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="Folder of a bundle, or of a run with one bundle.")
]
Precision = Annotated[Text, typer.Option(help="fp32, fp16 or int8.")]
Threads = Annotated[int, typer.Option(help="CPU threads [default: all cores].", min=0, max=256)]


def benchmark(
    bundle: BundleFolder,
    precision: Precision = None,
    warmup: Annotated[float, typer.Option(help="Milliseconds before timing.", min=0)] = 200.0,
    duration: Annotated[float, typer.Option(help="Seconds of timing.", min=0.01)] = 3.0,
    percentile: Annotated[str, typer.Option(help="Percentiles of latency.")] = "50,90,99",
    threads: Threads = 0,
    dry_run: DryMeasurement = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure latency, throughput, memory and size of every model of a bundle."""
    from dfkd_edge.console import make_console
    from dfkd_edge.deployment.bundle import find_bundle, open_bundle
    from dfkd_edge.runtime.timing import TimingRequest, parse_percentiles

    try:
        request = TimingRequest(warmup, duration, parse_percentiles(percentile))
    except ValueError as error:
        raise UsageError(
            f"'{percentile}' names no percentiles", where="--percentile", hint="such as 50,90,99"
        ) from error
    opened = open_bundle(find_bundle(bundle))
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


def predict(
    bundle: BundleFolder,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures or folders.")],
    top: Annotated[int, typer.Option("--top", help="Classes to show.", min=1)] = 3,
    precision: Precision = None,
    threads: Threads = 0,
    reject_threshold: Annotated[
        float | None,
        typer.Option(
            help="Score below which the answer is unknown [default: the bundle's own].",
            min=0,
            max=1,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Classify pictures: labels and scores.

    The bundle's own threshold refuses 5 % of the right answers on surrogate images. What is of no
    class may still score above it; a higher --reject-threshold refuses more of both.
    """
    document = classify_pictures(bundle, images, top, precision, threads, reject_threshold)
    rows, skipped = document["pictures"], document["skipped"]
    if as_json:
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    else:
        _show_predictions(document)
    for line in skipped:
        sys.stderr.write(f"skipped: {line}\n")
    if skipped:
        raise ArtifactError(f"{len(skipped)} of {len(rows) + len(skipped)} could not be classified")


def classify_pictures(
    bundle: Path,
    images: list[Path],
    top: int,
    precision: str | None,
    threads: int,
    reject_threshold: float | None,
) -> dict[str, Any]:
    """Classify pictures and folders of pictures with the recommended model of a bundle.

    Args:
        bundle: a bundle, or a run with one.
        images: pictures and folders.
        top: classes to name.
        precision: of the model; None takes the recommended one.
        threads: of the CPU; 0 takes all cores.
        reject_threshold: score below which the answer is "unknown"; None takes the bundle's own.

    Returns:
        The document of `predict --json`; `skipped` says what could not be read and why.

    Raises:
        UsageError: no bundle, no such model, no picture, no such threshold.
        ArtifactError: the bundle is damaged.
    """
    from dfkd_edge.deployment.bundle import find_bundle, open_bundle
    from dfkd_edge.runtime.confidence import FITTED_ON
    from dfkd_edge.runtime.doubts import graph_notes
    from dfkd_edge.runtime.sessions import OnnxSession, SessionRequest
    from dfkd_edge.runtime_faults import faults_as_errors

    opened = open_bundle(find_bundle(bundle))
    confidence = opened.confidence
    if reject_threshold is not None:
        if not 0 <= reject_threshold <= 1:
            raise UsageError("must be 0 to 1", where="reject_threshold", hint="such as 0.6")
        confidence = dataclasses.replace(confidence, reject_threshold=reject_threshold)
    files, skipped = _pictures(images)
    with faults_as_errors():
        name = _known(opened, precision) if precision else opened.precision
        request = SessionRequest(
            opened.model_path(name), name, "onnxruntime", threads, full_range=opened.full_range
        )
        session = OnnxSession(request)
        answers = (_classify(session, opened, confidence, file, top, skipped) for file in files)
        rows = [row for row in answers if row]
    fitted = opened.confidence.reject_threshold
    return {
        "bundle": str(opened.folder),
        "precision": name,
        "notes": graph_notes(name, opened.manifest["models"]),
        "reject_threshold": confidence.reject_threshold,
        "threshold_fitted_on": FITTED_ON if fitted and reject_threshold is None else None,
        "pictures": rows,
        "skipped": skipped,
    }


def _timed(bundle: Bundle, precision: str | None) -> list[str]:
    return [_known(bundle, precision)] if precision else list(bundle.manifest["models"])


def _known(bundle: Bundle, precision: str) -> str:
    if precision not in bundle.precisions:
        raise UsageError(
            f"bundle holds no {precision} model",
            where="--precision",
            hint=f"it holds {', '.join(bundle.precisions)}",
        )
    return precision


def _pictures(paths: list[Path]) -> tuple[list[Path], list[str]]:
    """Expand folders, and name what is not there.

    Raises:
        UsageError: nothing is left.
    """
    from dfkd_edge.runtime.folder_layouts import PICTURE_SUFFIXES

    files: list[Path] = []
    skipped: list[str] = []
    for path in paths:
        found = sorted(f for f in path.rglob("*") if f.suffix.lower() in PICTURE_SUFFIXES)
        if path.is_dir() and not found:
            skipped.append(f"{path}: folder holds no picture")
        elif not path.exists():
            skipped.append(f"{path}: no such file")
        files += found if path.is_dir() else [path] if path.exists() else []
    if not files:
        raise UsageError("no picture to classify", where=skipped[0])
    return files, skipped


def _classify(
    session: Any, bundle: Bundle, confidence: Confidence, file: Path, top: int, skipped: list[str]
) -> dict[str, Any] | None:
    from dfkd_edge.runtime.confidence import UNKNOWN
    from dfkd_edge.runtime.faults import Fault, LackingFault
    from dfkd_edge.runtime.preprocess import read_picture

    try:
        image_HWC = read_picture(file, bundle.side_px)
    except LackingFault:
        raise
    except Fault as fault:
        skipped.append(f"{fault.where}: {fault.what}")
        return None
    logits_NK = session.run(image_HWC[None]).logits
    score_K = confidence.probabilities(logits_NK)[0]
    best = score_K.argsort()[::-1][:top]
    is_known = bool(confidence.is_known(logits_NK)[0])
    return {
        "file": str(file),
        "label": bundle.classes[best[0]] if is_known else UNKNOWN,
        "top": [{"label": bundle.classes[k], "score": float(score_K[k])} for k in best],
    }


def _show_predictions(document: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from dfkd_edge.console import result_console
    from dfkd_edge.runtime.confidence import SHARE_REJECTED

    table = Table()
    for column in ("picture", "label", "score", "then"):
        table.add_column(column, overflow="fold")
    for row in document["pictures"]:
        first, *others = row["top"]
        is_known = row["label"] == first["label"]
        then = ", ".join(
            f"{escape(o['label'])} {o['score']:.3f}" for o in (others if is_known else row["top"])
        )
        label = f"[bold]{escape(row['label'])}[/bold]"
        table.add_row(escape(row["file"]), label, f"{first['score']:.3f}", then)
    threshold, fitted_on = document["reject_threshold"], document["threshold_fitted_on"]
    footnote = "there is no threshold: no answer is unknown"
    if threshold:
        footnote = f"unknown: score below {threshold:.3f}"
    if fitted_on:
        footnote += f", which refuses {SHARE_REJECTED:.0%} of the right answers on {fitted_on}"
    console = result_console()
    console.print(table)
    console.print(f"[dim]{footnote}[/dim]", soft_wrap=True)


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
