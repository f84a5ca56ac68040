"""What `export` and `check` print: the conversion ladder and the closing panel."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from dfkd_edge.commands.next_step import bundle_step
from dfkd_edge.console import result_console
from dfkd_edge.results.certainty import (
    MEASURES,
    UNITS,
    GateState,
    certainty_line,
    domain_label,
    domains_of,
    gate_headline,
    gate_state,
    gate_word,
    ladder_notes,
    limit_text,
    points_text,
    unit_of,
)
from dfkd_edge.results.class_answers import weak_classes_lines
from dfkd_edge.results.confidence import temperature_lines, unknown_lines
from dfkd_edge.results.kept import repair_text
from dfkd_edge.runtime.counting import counted, duration_text

if TYPE_CHECKING:
    from dfkd_edge.runtime.bundle_files import Bundle


GATE_COLOURS = {GateState.FAILED: "red", GateState.OFF: "yellow"}


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def show_ladder(document: dict[str, Any]) -> None:
    """Print the rungs side by side: domains, then size and latency; fits 80 columns.

    Domains were shown unequally often, so each states its number. Below, once, what the figures do
    not say.
    """
    measure, rungs = document["measure"], document["rungs"]
    table = Table(
        title=f"conversion ladder: {MEASURES[measure]}", title_justify="left", box=SIMPLE_HEAD
    )
    table.pad_edge = False
    table.add_column(f"domain ({unit_of(document)}s)", overflow="fold")
    for rung in rungs:
        table.add_column(rung["name"], justify="right", no_wrap=True)
    for domain, first in rungs[0]["domains"].items():
        figures = (_percent(rung["domains"][domain][measure]) for rung in rungs)
        label = escape(domain_label(document, domain))
        table.add_row(f"{label} ({first['num_images']:,})", *figures)
    averaged = domains_of(document)
    means = (sum(r["domains"][d][measure] for d in averaged) / len(averaged) for r in rungs)
    heading = "mean" if len(averaged) == len(rungs[0]["domains"]) else f"mean of {len(averaged)}"
    table.add_row(heading, *map(_percent, means), style="dim")
    for name, figure in LADDER_ROWS.items():
        table.add_row(name, *(figure(rung) for rung in rungs), style="dim")
    console = result_console()
    console.print(table)
    for note in ladder_notes(document):
        console.print(f"[yellow]note:[/yellow] {escape(note)}")


def _mean_divergence(rung: dict[str, Any]) -> str:
    parts = rung["domains"].values()
    divergences = [p["kl_to_previous"] for p in parts if p["kl_to_previous"] is not None]
    return f"{sum(divergences) / len(divergences):.4f}" if divergences else "-"


LADDER_ROWS: dict[str, Callable[[dict[str, Any]], str]] = {
    "KL to the left": _mean_divergence,
    "NaN": lambda rung: str(sum(part["num_nan"] for part in rung["domains"].values())),
    "MiB": lambda rung: f"{rung['size_bytes'] / 2**20:.2f}" if rung["size_bytes"] else "-",
    "ms here": lambda rung: f"{rung['latency_ms']:.2f}" if rung["latency_ms"] else "-",
}


def verdict_lines(document: dict[str, Any]) -> list[str]:
    """Say what the gate decided, which conversion is to blame, and on what images."""
    gate = document["gate"]
    charged = document["charged_to"]
    loss = next((entry for entry in document["losses"] if entry["rung"] == charged), None)
    charge = "no conversion loses anything in the mean over domains"
    if loss:
        by = f"p = {loss['p_value']:.2g} by {UNITS[document['measure']]}"
        noise = "within noise" if loss["within_noise"] else by
        charge = f"{charged} loses {loss['drop'] * 100:.2f} points in the mean, {noise}"
    return [
        f"gate        {gate_word(gate)}: {gate['sentence']}",
        f"charged to  {charge}",
        certainty_line(document),
        *weak_classes_lines(document),
        *temperature_lines(document),
        *unknown_lines(document),
        f"images      {document['images']}",
    ]


def show_bundle(bundle: Bundle, document: dict[str, Any], report: str) -> None:
    """Print the closing panel of `export`; the time is that of the export that made the bundle."""
    manifest = bundle.manifest
    lines, provenance = verdict_lines(document), manifest.provenance
    repaired, seconds = repair_text(provenance, manifest.model_notes), provenance.get("seconds")
    if repaired:
        lines.append(f"repair      {repaired}")
    warnings = provenance.get("lint_warnings", [])
    if warnings:
        rules = sorted({w["rule"] for w in warnings})
        lines.append(
            f"lint        {counted(len(warnings), 'warning')} of {counted(len(rules), 'rule')} "
            f"({', '.join(rules)}), in manifest.json"
        )
    lines += [
        f"bundle      {bundle.folder}",
        f"report      {report}",
        f"precision   {manifest.precision} for {manifest.target}",
        *([f"time        {duration_text(seconds)}"] if seconds is not None else []),
    ]
    show_panel(lines, document, bundle_step(bundle.folder))


def check_plan_lines(plan: dict[str, Any]) -> list[str]:
    """Say what a check would measure, how often, and how long that takes."""
    lines = [
        f"{plan['bundle']} for {plan['target']}; nothing was run",
        f"models    {', '.join(plan['rungs'])}",
        f"images    {plan['images']}",
    ]
    for domain in plan["domains"]:
        spoilt = f", spoilt by {', '.join(domain['corruptions'])}" if domain["corruptions"] else ""
        lines.append(f"          {domain['name']}: {domain['num_images']}{spoilt}")
    again = plan["more_if_unclear"]
    more = f"; a larger loss within noise gets {again} times as many more" if again else ""
    is_spoilt = any(domain["corruptions"] for domain in plan["domains"])
    unit = "view" if is_spoilt else UNITS[plan["measure"]]
    allowed = f"{MEASURES[plan['measure']]} may fall by {points_text(plan['max_drop'])}"
    is_off = plan["max_drop"] >= 1
    gate = f"off ({limit_text(1)})" if is_off else f"{allowed} on the worst domain"
    lines += [
        f"how       every model sees each of {counted(plan['num_images'], unit)} once{more}",
        f"gate      {gate}",
    ]
    if plan["seconds"] is None:
        return [*lines, "time      no estimate, export timed no model"]
    took = f"about {duration_text(plan['seconds'])} in the models, as export timed them on"
    but = f", without {', '.join(plan['untimed'])}" if plan["untimed"] else ""
    return [*lines, f"time      {took} {plan['timed_on']}{but}"]


def show_panel(lines: list[str], document: dict[str, Any], next_step: str) -> None:
    """Print a closing panel in the colour of the gate, with the next step."""
    colour = GATE_COLOURS.get(gate_state(document["gate"]), "green")
    if document["measure"] == "agreement":
        lines.append("accuracy    add --data DIR with labelled pictures to measure top-1")
    lines.append(f"next        {next_step}")
    result_console().print(
        Panel(
            escape("\n".join(lines)),
            title=gate_headline(document["gate"]),
            title_align="left",
            expand=False,
            border_style=colour,
        )
    )
