"""The conversion ladder as a table, and the panels that close `export` and `check`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from dfkd_edge.bundles.opening import held_runtimes
from dfkd_edge.commands.distill_view import accuracy_row, weak_text
from dfkd_edge.commands.panel import bundle_step, closing_panel
from dfkd_edge.console import result_console
from dfkd_edge.results.gate import Gate, GateState
from dfkd_edge.results.ladder import STUDENT, Ladder, MeasuredRung
from dfkd_edge.results.wording import METRICS, points_text
from dfkd_edge.runtime.counting import duration_text
from dfkd_edge.runtime.plain_text import one_line

if TYPE_CHECKING:
    from dfkd_edge.runtime.bundle_files import Bundle

UNSTEADY = "unsteady"  # How a caveat of such a time begins
GATE_COLOURS = {GateState.FAILED: "red", GateState.OFF: "yellow"}


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def show_ladder(ladder: Ladder) -> None:
    """Print the rungs side by side: domains, then size and latency; fits 80 columns.

    Domains were shown unequally often, so each states its number. Below, once, what the figures do
    not say.
    """
    title = f"conversion ladder: {METRICS[ladder.metric]}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(f"domain ({ladder.unit}s)", overflow="fold")
    for rung in ladder.rungs:
        table.add_column(rung.name, justify="right", no_wrap=True)  # figures line up at the point
    domains = ladder.rungs[0].domains
    for domain, first in domains.items():
        figures = (_percent(rung.domains[domain].share(ladder.metric)) for rung in ladder.rungs)
        table.add_row(f"{escape(one_line(ladder.label(domain)))} ({first.num_images:,})", *figures)
    num = len(ladder.mean_over)
    means = (_percent(ladder.mean(rung)) for rung in ladder.rungs)
    table.add_row("mean" if num == len(domains) else f"mean of {num}", *means, style="dim")
    for name, figure in LADDER_ROWS.items():
        table.add_row(name, *(figure(rung) for rung in ladder.rungs), style="dim")
    console = result_console()
    console.print(table)
    for note in _caveats(ladder):
        console.print(f"[yellow]note:[/yellow] {escape(note)}")


def _mean_divergence(rung: MeasuredRung) -> str:
    found = [part.kl_to_previous for part in rung.domains.values()]
    divergences = [value for value in found if value is not None]
    return f"{sum(divergences) / len(divergences):.4f}" if divergences else "-"


LADDER_ROWS: dict[str, Callable[[MeasuredRung], str]] = {
    "KL to the left": _mean_divergence,
    "NaN": lambda rung: str(sum(part.num_nan for part in rung.domains.values())),
    "MiB": lambda rung: f"{rung.size_bytes / 2**20:.2f}" if rung.size_bytes else "-",
    "ms here as a graph": lambda rung: f"{ms:.2f}" if (ms := _graph_ms(rung)) else "-",
}


def _graph_ms(rung: MeasuredRung) -> float | None:
    """Time in ONNX Runtime or TensorRT: one in PyTorch beside it would compare two programs."""
    return rung.onnx_latency_ms if rung.runtime == "PyTorch" else rung.latency_ms


def _caveats(ladder: Ladder) -> list[str]:
    """Say what must be read with the figures of the table, once of all rungs of which it holds."""
    rungs_of: dict[str, list[str]] = {}
    for rung in ladder.rungs:
        as_graph = rung.onnx_latency_caveats
        for caveat in as_graph if rung.runtime == "PyTorch" else rung.latency_caveats:
            is_unsteady = caveat.startswith(UNSTEADY)
            rungs_of.setdefault(UNSTEADY if is_unsteady else caveat, []).append(rung.name)
    texts = {UNSTEADY: f"ms here {UNSTEADY}, other work or changing clocks: time again when idle"}
    times = [f"{', '.join(names)}: {texts.get(text, text)}" for text, names in rungs_of.items()]
    return [*ladder.domain_notes(), *ladder.notes, *times]


def gate_text(gate: Gate) -> str:
    """Say what the gate decided and on what evidence, at a glance."""
    low, high = (100 * end for end in gate.interval)
    lost = f"{100 * gate.drop:+.2f} points lost ({low:+.1f} to {high:+.1f}) on {gate.domain}"
    few = f"; {gate.doubt}" if gate.doubt else ""
    return f"{gate.word}: {lost}, {points_text(gate.max_drop)} allowed{few}"


def speed_text(ladder: Ladder) -> str:
    """Say what the shipped model takes beside the FP32 student."""
    shipped, student = ladder.shipped, ladder.rung(STUDENT)
    parts = []
    if shipped.size_bytes and student.size_bytes:
        times = student.size_bytes / shipped.size_bytes
        smaller = f", {times:.1f} times smaller than FP32" if times > 1.05 else ""
        parts.append(f"{shipped.size_bytes / 2**20:.2f} MiB{smaller}")
    if shipped.latency_ms:
        parts.append(f"{shipped.latency_ms:.2f} ms an image on this machine")
    return ", ".join(parts)


def _runtimes_text(bundle: Bundle) -> str:
    names = held_runtimes(bundle)
    return f"; runtimes/ has a README.md for {', '.join(names)}" if names else ""


def bundle_panel(bundle: Bundle, ladder: Ladder, report: str, *, is_check: bool = False) -> Panel:
    """Make the panel that closes `export` or `check`; only the first says how it was made.

    The time is that of the export that made the bundle, which may be an earlier one.
    """
    manifest, gate = bundle.manifest, ladder.gate
    assert gate is not None  # exports and checks are always judged
    seconds = manifest.provenance.get("seconds")
    took = f", made in {duration_text(seconds)}" if seconds is not None else ""
    on_device = "python3 check.pyz in the bundle, on the device"
    following = on_device if is_check else bundle_step(bundle.folder)
    rows = (
        ("gate", gate_text(gate)),
        accuracy_row(ladder),
        ("size", speed_text(ladder)),
        ("weak", weak_text(ladder)),
        ("bundle", str(bundle.folder) + _runtimes_text(bundle)),
        ("report", report),
        ("precision", "" if is_check else f"{manifest.precision} for {manifest.target}{took}"),
        ("next", following if gate.passed else gate.advice),
    )
    return closing_panel(gate.headline(), rows, GATE_COLOURS.get(gate.state, "green"))
