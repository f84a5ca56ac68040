"""The section about speed and size: precisions against each other, and machines in one table."""

import shlex
from collections.abc import Iterable, Iterator, Mapping

from dfkd_edge.report.accuracy import NOTES_PLACE
from dfkd_edge.report.blocks import Block, Cell, Figures, Missing, Notes, Section, Table, Tile
from dfkd_edge.report.commands import measuring
from dfkd_edge.report.figures import SpeedPoint, speed_figure
from dfkd_edge.report.sources import BundleSource, Sources
from dfkd_edge.report.svg import NOTHING, TIMES, number_text, percent
from dfkd_edge.results.benchmark import MeasuredLatency
from dfkd_edge.results.device import OF_ANOTHER, DeviceLatency, DeviceModel, DeviceResult
from dfkd_edge.results.ladder import STUDENT, TEACHER, Ladder
from dfkd_edge.results.wording import METRICS
from dfkd_edge.runtime.caveats import FP16_IN_ENGINE

TIME_HEADINGS = ("p50 ms", "p90 ms", "p99 ms", "images/s", "peak MiB")
HEADINGS = ("machine", "model", *TIME_HEADINGS, "golden logits", "top-1")
FP32_GRAPH = "onnx-fp32"
IN_FLOAT = "INT8 in float, no measure"


def speed_section(sources: Sources) -> Section:
    """What each precision costs and gives, and percentiles wherever it was measured."""
    lead = "One image from memory to result. Compare rows of one machine only."
    blocks = [*_ladder_blocks(sources), *_host_blocks(sources)]
    if not any(device.is_device for device in sources.devices):
        what = "answered for this bundle" if sources.other_devices else "answered"
        missing = f"No device has {what} yet" + ", only a host" * bool(sources.devices)
        merge = f"dfkd-edge report {shlex.quote(str(sources.path))} result.json"
        blocks.append(Missing(missing, f"python3 check.pyz, then {merge}"))
    if sources.other_devices:
        rows = list(_device_rows(sources.other_devices))
        caption = f"results {OF_ANOTHER}: none of them is about what this page shows"
        blocks.append(Table(HEADINGS, rows, caption))
    for device in (*sources.devices, *sources.other_devices):
        caveats = [
            f"{precision}: {line}"
            for precision, model in device.models.items()
            for line in (*model.notes, *model.latency.caveats)
        ]
        blocks.append(Notes(f"noted in the result of {device.name}", [*device.faults, *caveats]))
    return Section(blocks, lead)


def _ladder_blocks(sources: Sources) -> list[Block]:
    """Draw the rungs that were timed, and say which times are missing or to be read with care."""
    ladder = next((climb.ladder for climb in sources.climbs if climb.ladder.gate), None)
    points = list(_speed_points(ladder)) if ladder else []
    if ladder is None or len(points) < 2:
        return []
    careful = [rung.name for rung in ladder.rungs if rung.latency_ms and rung.latency_caveats]
    untimed = [rung.name for rung in ladder.rungs if not rung.latency_ms]
    notes = (("to be read with these times", careful), ("not in the picture", untimed))
    return [
        Figures([speed_figure(points, METRICS[ladder.metric])]),
        *(Notes(title, [f"{', '.join(names)}: {NOTES_PLACE}"]) for title, names in notes if names),
    ]


def _host_blocks(sources: Sources) -> Iterator[Block]:
    """Percentiles of this host and of devices, with what is to be said of the host's."""
    rows = (*_benchmark_rows(sources.bundles), *_device_rows(sources.devices))
    if rows:
        yield Table(HEADINGS, rows, "latency percentiles by machine")
    else:
        yield Missing("No latency percentiles yet", measuring(sources, "benchmark"))
    for bundle in sources.bundles:
        models = bundle.benchmark.models if bundle.benchmark else ()
        caveats = [f"{m.precision}: {line}" for m in models for line in m.latency.caveats]
        yield Notes(f"noted in benchmark of {bundle.folder.name}", caveats)


def _speed_points(ladder: Ladder) -> Iterator[SpeedPoint]:
    """Every rung that was timed, as a graph of ONNX Runtime where it was timed as one."""
    has_graph = any(rung.name == FP32_GRAPH and rung.latency_ms for rung in ladder.rungs)
    for rung in ladder.rungs:
        latency_ms = rung.onnx_latency_ms or rung.latency_ms
        if not latency_ms or (rung.name == STUDENT and has_graph):
            continue  # the graph holds the same weights
        runtime = "ONNX Runtime" if rung.onnx_latency_ms else rung.runtime
        name = rung.name + f", {runtime}" * (runtime != "ONNX Runtime")
        yield SpeedPoint(name, latency_ms, ladder.mean(rung))


def host_tiles(ladder: Ladder) -> Iterator[Tile]:
    """Compare student and teacher as FP32 graphs in one runtime; say what the last rung takes.

    Their times in torch are of two precisions where the CPU computes in bfloat16.
    """
    teacher, timed = ladder.rung(TEACHER), [rung for rung in ladder.rungs if rung.latency_ms]
    student = next((rung for rung in timed if rung.name == FP32_GRAPH), None)
    if not (teacher.onnx_latency_ms and student and student.latency_ms):
        return
    before, after, last = teacher.onnx_latency_ms, student.latency_ms, timed[-1]
    note = "as fast as the teacher, both FP32 in ONNX Runtime on the host, the same threads: "
    note += f"{before:.2f} ms, {after:.2f} ms"
    if last is not student:
        note += f"; {last.name} {last.latency_ms:.2f} ms"
    caveats = (*teacher.onnx_latency_caveats, *student.latency_caveats, *last.latency_caveats)
    note += f"; {NOTES_PLACE}" * bool(caveats)
    yield Tile("Speed on the host", f"{before / after:.1f}{TIMES}", note)


def device_tiles(sources: Sources) -> Iterator[Tile]:
    """Say how long one image takes on each device that has answered, in its bundle's precision."""
    precision = {bundle.bundle.sha256: bundle.bundle.precision for bundle in sources.bundles}
    for device in sources.devices:
        ours = precision[device.bundle_sha256]
        model = device.models.get(ours)
        if model and model.p50_ms and not model.not_target:
            note = f"one image, p50, {ours}: {device.name}"
            yield Tile("On the device", f"{model.p50_ms:.2f} ms", note)


def _benchmark_rows(bundles: Iterable[BundleSource]) -> Iterator[tuple[Cell, ...]]:
    for model in (m for b in bundles if b.benchmark for m in b.benchmark.models):
        note = f"{model.backend}, host" + f"; {IN_FLOAT}" * model.in_float
        golden = Cell("same" if model.is_golden else "differ")
        times = _times(None if model.in_float else model.latency)
        machine = Cell(model.cpu or "host", note)
        yield (machine, Cell(model.precision), *times, golden, Cell(NOTHING))


def _device_rows(devices: Iterable[DeviceResult]) -> Iterator[tuple[Cell, ...]]:
    for device in devices:
        for precision, model in device.models.items():
            is_good, is_flag = model.golden.passed, FP16_IN_ENGINE in model.notes
            yield (
                Cell(device.name, _machine_note(device, model)),
                Cell("fp32", "graph of the fp16 bundle") if is_flag else Cell(precision),
                *_times(None if model.settings.int8_in_float else model.latency),
                Cell("same" if is_good else "differ", tone="good" if is_good else "bad"),
                Cell(percent(model.data.mean_top1)),
            )


def _machine_note(device: DeviceResult, model: DeviceModel) -> str:
    runtime = f"{model.backend} {model.version}".strip()
    parts = (runtime, model.not_target, model.latency.state.power_mode, (device.time or "")[:10])
    in_float = f"; {IN_FLOAT}" * model.settings.int8_in_float
    return ", ".join(filter(None, parts)) + in_float


def _times(latency: MeasuredLatency | DeviceLatency | None) -> tuple[Cell, ...]:
    """Percentiles, throughput and memory; dashes for a time that is no measure."""
    if latency is None:
        return Cell.row(*[NOTHING] * len(TIME_HEADINGS))
    stated: Mapping[str, float] = latency.percentile_ms
    times = [f"{stated[p]:.2f}" if p in stated else NOTHING for p in ("p50", "p90", "p99")]
    throughput, memory_mib = latency.throughput_per_s, latency.peak_memory_mib
    times.append(number_text(throughput) if throughput else NOTHING)
    return Cell.row(*times, f"{memory_mib:.0f}" if memory_mib else NOTHING)
