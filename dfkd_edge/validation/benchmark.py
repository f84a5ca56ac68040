"""Latency, throughput and memory of what lies in a bundle; each model in a process of its own.

A process of its own keeps one model's memory and warm caches out of another's figures; it is the
very program that check.pyz runs on the device, so host and device figures mean the same.
"""

import dataclasses
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from dfkd_edge.bundles.opening import held_precision
from dfkd_edge.errors import ConversionError, faults_as_errors
from dfkd_edge.files import read_json, scratch_folder
from dfkd_edge.interfaces import Reporter
from dfkd_edge.results.benchmark import Benchmark, MeasuredLatency, ModelBenchmark
from dfkd_edge.results.codec import from_json, to_json
from dfkd_edge.results.kept import keep_result
from dfkd_edge.runtime.bundle_files import BENCHMARK, Bundle
from dfkd_edge.runtime.session import providers_of
from dfkd_edge.runtime.timing import TimingRequest

SLOW_INT8 = (
    "INT8 is not faster than FP32 on this CPU: check.pyz --precision all on the device "
    "gives the times that count"
)


def benchmark_bundle(
    bundle: Bundle,
    precision: str | None,
    request: TimingRequest,
    threads: int,
    device: str,
    reporter: Reporter,
) -> Benchmark:
    """Measure every model of a bundle, or that of one precision, and keep it for the report.

    `device` is onnxruntime's: `cpu`, or `cuda` with onnxruntime-gpu.

    Raises:
        EnvironmentLackingError: the device is not there.
        UsageError: the bundle holds no such model.
    """
    with faults_as_errors():
        providers_of(device)
    names = [held_precision(bundle, precision)] if precision else list(bundle.manifest.models)
    rows = []
    stage = f"timing {' and '.join(names)} for {request.duration_s:g} s{' each' * (len(names) > 1)}"
    with reporter.stage(stage, len(names)) as progress:
        for name in names:
            rows.append(_benchmark_model(bundle.folder, name, request, threads, device))
            progress.advance()
    models = tuple(with_slow_int8_told(rows, bundle.manifest.backend))
    benchmark = Benchmark(bundle=str(bundle.folder), target=bundle.manifest.target, models=models)
    keep_result(bundle.folder / BENCHMARK, to_json(benchmark), reporter)
    return benchmark


def _benchmark_model(
    bundle: Path, precision: str, request: TimingRequest, num_threads: int, device: str
) -> ModelBenchmark:
    """Measure one model of a bundle in a new process, with onnxruntime.

    Raises:
        ConversionError: the model cannot be run.
    """
    with scratch_folder() as folder:
        output = folder / "result.json"
        flags: dict[str, object] = {
            "bundle": bundle.resolve(),
            "precision": precision,
            "backend": "onnxruntime",
            "threads": num_threads,
            "device": device,
            "warmup": request.warmup_ms,
            "duration": request.duration_s,
            "percentile": ",".join(f"{p:g}" for p in request.percentiles),
            "output": output,
        }
        command = [sys.executable, "-m", "dfkd_edge.runtime", "--quiet"]
        command += [f"--{name}={value}" for name, value in flags.items()]
        done = subprocess.run(command, capture_output=True, text=True)  # 3: golden logits differ
        document = read_json(output) if output.exists() else {}
    model = document.get("models", {}).get(precision)
    if model is None:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ConversionError(f"cannot be measured: {lines[-1]}", where=f"{bundle}, {precision}")
    latency = from_json(MeasuredLatency, model["latency"], output)
    caveats = (*model["notes"], *latency.caveats)
    return ModelBenchmark(
        precision=precision,
        size_bytes=model["size_bytes"],
        backend=f"{model['backend']} {model['version']}" + f" on {device}" * (device != "cpu"),
        threads=model["settings"]["threads"],
        latency=dataclasses.replace(latency, caveats=caveats),
        peak_memory_mib=latency.peak_memory_mib,
        model_memory_mib=latency.peak_memory_mib - model["memory_before_mib"],
        is_golden=model["golden"]["passed"],
        cpu=document["device"].get("cpu", ""),
        in_float=bool(model["settings"].get("int8_in_float")),
    )


def with_slow_int8_told(rows: Sequence[ModelBenchmark], backend: str) -> list[ModelBenchmark]:
    """Add to INT8's caveats that FP32 is as fast here; for TensorRT the runtime says why."""
    first = {row.precision: next(iter(row.latency.percentile_ms.values())) for row in rows}
    found = []
    for row in rows:
        is_slow = row.precision == "int8" and first["int8"] >= first.get("fp32", float("inf"))
        if is_slow and not row.in_float and backend != "tensorrt":
            latency = row.latency
            latency = dataclasses.replace(latency, caveats=(*latency.caveats, SLOW_INT8))
            row = dataclasses.replace(row, latency=latency)
        found.append(row)
    return found
