"""The section about speed: precisions against each other, and machines in one table."""

from __future__ import annotations

from collections.abc import Sequence

from dfkd_edge.report.blocks import (
    Block,
    Cell,
    Figures,
    Missing,
    Notes,
    Section,
    Table,
    Tile,
    text_row,
)
from dfkd_edge.report.figures import SpeedPoint, speed_figure
from dfkd_edge.report.ladder_view import (
    NOTES_PLACE,
    STUDENT,
    TEACHER,
    LadderView,
    measuring,
    read_ladders,
    subject,
)
from dfkd_edge.report.sources import Document, Sources
from dfkd_edge.report.svg import NOTHING, TIMES, number_text, percent
from dfkd_edge.results.device import OF_ANOTHER, DeviceResult
from dfkd_edge.runtime.caveats import FP16_IN_ENGINE

SPEED_HEADINGS = (
    *("machine", "model", "p50 ms", "p90 ms", "p99 ms", "images/s", "peak MiB"),
    *("golden logits", "top-1"),
)
FP32_GRAPH = "onnx-fp32"
IN_FLOAT = "INT8 in float, no measure"


def speed_section(sources: Sources) -> Section:
    """What each precision costs and gives, and percentiles wherever it was measured."""
    lead = "One image from memory to result. Compare rows of one machine only."
    ladder = next((one for one in read_ladders(sources) if one.document.get("gate")), None)
    blocks: list[Block] = []
    rows = [*_benchmark_rows(sources), *_device_rows(sources.devices)]
    if rows:
        blocks.append(Table(SPEED_HEADINGS, tuple(rows), "latency percentiles by machine"))
    else:
        blocks.append(Missing("No latency percentiles yet", measuring(sources, "benchmark")))
    for bundle in sources.bundles:
        blocks += _notes(f"benchmark of {bundle.folder.name}", _doubts_of(bundle.benchmark or {}))
    if not any(device.is_device for device in sources.devices):
        command = f"python3 check.pyz, then dfkd-edge report {subject(sources)} result.json"
        what = "answered for this bundle" if sources.other_devices else "answered"
        missing = f"No device has {what} yet"
        missing += ", only a host" * bool(sources.devices)
        blocks.append(Missing(missing, command))
    others = _device_rows(sources.other_devices)
    if others:
        caption = f"results {OF_ANOTHER}: none of them is about what this page shows"
        blocks.append(Table(SPEED_HEADINGS, tuple(others), caption))
    for device in (*sources.devices, *sources.other_devices):
        faults = [str(fault) for fault in device.document.get("faults", ())]
        blocks += _notes(
            f"the result of {device.device}", [*faults, *_device_doubts(device.document)]
        )
    points = _speed_points(ladder) if ladder else []
    if len(points) > 1 and ladder:
        blocks.insert(0, Figures((speed_figure(points, ladder.measure_name),)))
        untimed = [str(rung["name"]) for rung in ladder.rungs if not rung.get("latency_ms")]
        timed = [rung for rung in ladder.rungs if rung.get("latency_ms")]
        doubtful = [str(rung["name"]) for rung in timed if rung.get("latency_doubts")]
        for title, names in (
            ("not in the picture", untimed),
            ("to be read with these times", doubtful),
        ):
            if names:
                blocks.insert(1, Notes(title, (f"{', '.join(names)}: {NOTES_PLACE}",)))
    return Section("speed", "Speed", lead, tuple(blocks))


def _speed_points(ladder: LadderView) -> list[SpeedPoint]:
    """Every rung that was timed, as a graph of ONNX Runtime where it was timed as one."""
    has_graph = any(r["name"] == FP32_GRAPH and r.get("latency_ms") for r in ladder.rungs)
    points = []
    for rung in ladder.rungs:
        latency_ms = rung.get("onnx_latency_ms") or rung.get("latency_ms")
        if not latency_ms or (rung["name"] == STUDENT and has_graph):
            continue
        runtime = "ONNX Runtime" if rung.get("onnx_latency_ms") else ladder.runtime(rung)
        name = str(rung["name"]) + f", {runtime}" * (runtime != "ONNX Runtime")
        points.append(SpeedPoint(name, float(latency_ms), ladder.mean(rung)))
    return points


def _benchmark_rows(sources: Sources) -> list[tuple[Cell, ...]]:
    rows = []
    for bundle in sources.bundles:
        for model in (bundle.benchmark or {}).get("models", ()):
            note = f"{model['backend']}, host"
            note += f"; {IN_FLOAT}" if model.get("in_float") else ""
            machine, name = Cell(str(model["cpu"]) or "host", note), Cell(str(model["precision"]))
            golden = Cell("same" if model["is_golden"] else "differ")
            times = _times({} if model.get("in_float") else model["latency"])
            rows.append((machine, name, *times, golden, Cell(NOTHING)))
    return rows


def speed_tiles(ladder: LadderView, sources: Sources) -> list[Tile]:
    """Say in the verdict how fast the student is, on the host and on devices that answered."""
    return [*_host_tile(ladder), *_device_tiles(sources)]


def _host_tile(ladder: LadderView) -> list[Tile]:
    """Compare student and teacher as FP32 graphs in one runtime; say what the last rung takes.

    Their times in torch are of two precisions where the CPU computes in bfloat16.
    """
    teacher = ladder.rung(TEACHER)
    before = teacher.get("onnx_latency_ms")
    student = next((rung for rung in ladder.rungs if rung["name"] == FP32_GRAPH), {})
    after = student.get("latency_ms")
    if not (before and after):
        return []
    timed = next(rung for rung in reversed(ladder.rungs) if rung.get("latency_ms"))
    note = "as fast as the teacher, both FP32 in ONNX Runtime on the host, the same threads: "
    note += f"{before:.2f} ms, {after:.2f} ms"
    if timed is not student:
        note += f"; {timed['name']} {timed['latency_ms']:.2f} ms"
    doubts = [teacher.get("onnx_latency_doubts")]
    doubts += [rung.get("latency_doubts") for rung in (student, timed)]
    note += f"; {NOTES_PLACE}" * any(doubts)
    return [Tile("Speed on the host", f"{before / after:.1f}{TIMES}", note)]


def _device_tiles(sources: Sources) -> list[Tile]:
    """Say how long one image takes on each device that has answered, in its bundle's precision."""
    precision = {bundle.sha256: bundle.manifest["precision"] for bundle in sources.bundles}
    tiles = []
    for device in sources.devices:
        ours = precision[device.bundle_sha256]
        model = device.document["models"].get(ours, {})
        p50 = model.get("latency", {}).get("percentile_ms", {}).get("p50")
        if p50 and not model.get("not_target"):
            note = f"one image, p50, {ours}: {device.device}"
            tiles.append(Tile("On the device", f"{p50:.2f} ms", note))
    return tiles


def _device_rows(devices: Sequence[DeviceResult]) -> list[tuple[Cell, ...]]:
    rows = []
    for device in devices:
        measured = str(device.document.get("time", ""))[:10]
        for precision, model in device.document["models"].items():
            latency, data = model.get("latency", {}), model.get("data", {})
            power = latency.get("state", {}).get("power_mode")
            note = f"{model.get('backend', '')} {model.get('version', '')}".strip()
            note += f", {model['not_target']}" if model.get("not_target") else ""
            note += f", {power}" if power else ""
            note += f", {measured}" if measured else ""
            if model.get("settings", {}).get("int8_in_float"):
                note, latency = f"{note}; {IN_FLOAT}", {}
            golden = bool(model.get("golden", {}).get("passed"))
            rows.append(
                (
                    Cell(device.device, note),
                    Cell(*_graph_of(str(precision), model)),
                    *_times(latency),
                    Cell("same" if golden else "differ", tone="good" if golden else "bad"),
                    Cell(percent(data.get("mean_top1"))),
                )
            )
    return rows


def _graph_of(precision: str, model: Document) -> tuple[str, str]:
    """Name the graph that ran, and the bundle's precision where that is another one."""
    if FP16_IN_ENGINE in model.get("notes", ()):
        return "fp32", "graph of the fp16 bundle"
    return precision, ""


def _times(latency: Document) -> tuple[Cell, ...]:
    stated = latency.get("percentile_ms", {})
    times = [f"{stated[p]:.2f}" if p in stated else NOTHING for p in ("p50", "p90", "p99")]
    throughput, memory = latency.get("throughput_per_s"), latency.get("peak_memory_mib")
    return (
        *text_row(*times),
        Cell(number_text(throughput) if throughput else NOTHING),
        Cell(f"{memory:.0f}" if memory else NOTHING),
    )


def _doubts_of(benchmark: Document) -> list[str]:
    return [
        f"{model['precision']}: {doubt}"
        for model in benchmark.get("models", ())
        for doubt in model["latency"].get("doubts", ())
    ]


def _device_doubts(document: Document) -> list[str]:
    return [
        f"{precision}: {doubt}"
        for precision, model in document["models"].items()
        for doubt in (*model.get("notes", ()), *model.get("latency", {}).get("doubts", ()))
    ]


def _notes(name: str, lines: list[str]) -> list[Block]:
    return [Notes(f"noted in {name}", tuple(lines))] if lines else []
