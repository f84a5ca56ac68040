"""The section about accuracy: every rung of a ladder by domain, and what each step loses."""

import shlex

from dfkd_edge.report.blocks import Block, Cell, Figures, Missing, Notes, Section, Table
from dfkd_edge.report.commands import exporting, run_argument
from dfkd_edge.report.figures import Estimate, interval_figure
from dfkd_edge.report.sources import BundleSource, Climb, Sources
from dfkd_edge.report.svg import NOTHING, percent
from dfkd_edge.results.ladder import Ladder, MeasuredRung
from dfkd_edge.results.wording import METRICS

MIB = 1 << 20


def accuracy_section(sources: Sources) -> Section:
    """Every rung with its interval, and what each step loses."""
    lead = "The same images before and after every conversion, with 95% intervals."
    climbs, blocks = sources.climbs, list[Block]()
    for climb in climbs:
        if climb.command != "distill" or not blocks:  # the later ladders hold its rungs
            blocks += _ladder_blocks(climb)
    if not any(climb.ladder.gate for climb in climbs):
        blocks.append(Missing("The conversions are not measured yet", exporting(sources)))
    blocks += [_stale_bundle(bundle, run_argument(sources)) for bundle in sources.stale]
    return Section("accuracy", "Accuracy", lead, blocks)


def _stale_bundle(bundle: BundleSource, run: str) -> Missing:
    output = shlex.quote(str(bundle.folder))
    command = f"dfkd-edge export {run} --target {shlex.quote(bundle.target)}"
    what = f"Bundle {bundle.folder.name} holds an earlier student and is left out here"
    return Missing(what, f"{command} --output {output} --exist-ok")


def _ladder_blocks(climb: Climb) -> list[Block]:
    ladder, metric = climb.ladder, climb.ladder.metric
    figures = [
        interval_figure(
            ladder.label(domain),
            [
                Estimate(rung.name, part.share(metric), *part.interval(metric))
                for rung, part in ((rung, rung.domains[domain]) for rung in ladder.rungs)
            ],
        )
        for domain in ladder.shown_domains
    ]
    notes = Notes("to be read with these figures", ladder.caveats())
    losses = [_loss_table(ladder)] if ladder.losses else []
    return [Figures(figures), _rung_table(climb), notes, *losses]


def _rung_table(climb: Climb) -> Table:
    ladder, count = climb.ladder, len(climb.ladder.mean_over)
    headings = (
        "rung",
        *map(ladder.label_with_count, ladder.shown_domains),
        "mean" if count == len(ladder.shown_domains) else f"mean of {count}",
        "KL to the one above",
        "MiB",
        "ms on this host",
        "not finite",
    )
    rows = [_rung_row(ladder, rung) for rung in ladder.rungs]
    return Table(headings, rows, f"{METRICS[ladder.metric]}, {climb.origin}")


def _rung_row(ladder: Ladder, rung: MeasuredRung) -> tuple[Cell, ...]:
    cells = [Cell(rung.name)]
    for domain in ladder.shown_domains:
        part = rung.domains[domain]
        low, high = part.interval(ladder.metric)
        note = f"{percent(low)} to {percent(high)}" if low < high else ""
        cells.append(Cell(percent(part.share(ladder.metric)), note))
    parts = rung.domains.values()
    divergences = [part.kl_to_previous for part in parts if part.kl_to_previous is not None]
    num_nan = sum(part.num_nan for part in parts)
    return (
        *cells,
        Cell(percent(ladder.mean(rung))),
        Cell(f"{sum(divergences) / len(divergences):.4f}" if divergences else NOTHING),
        Cell(f"{rung.size_bytes / MIB:.2f}" if rung.size_bytes else NOTHING),
        Cell(f"{rung.latency_ms:.2f}" if rung.latency_ms else NOTHING, _timing_note(rung)),
        Cell(str(num_nan), tone="bad" if num_nan else ""),
    )


def _timing_note(rung: MeasuredRung) -> str:
    """Say what ran a rung that was timed, and the time of the teacher in the other runtime."""
    if not rung.latency_ms:
        return ""
    as_graph = rung.onnx_latency_ms
    return rung.runtime + (f"; {as_graph:.2f} in ONNX Runtime" if as_graph else "")


def _loss_table(ladder: Ladder) -> Table:
    rows = []
    for loss in ladder.losses:
        low, high = (100 * end for end in loss.interval)
        noise = "within noise" if loss.is_within_noise else "beyond noise"
        if not loss.num_lost and not loss.num_won:
            noise = "no change"
        rows.append(
            (
                Cell(f"{loss.previous} → {loss.rung}"),
                Cell(f"{100 * loss.drop:+.2f}", f"{low:+.2f} to {high:+.2f}"),
                Cell(f"{100 * loss.worst_drop:+.2f}", loss.worst_domain),
                Cell(str(loss.num_lost)),
                Cell(str(loss.num_won)),
                Cell(f"{loss.p_value:.2g}", noise),
            )
        )
    unit = f"{ladder.unit}s lost"
    headings = ("step", "points lost, mean", "worst domain", unit, "won", "p by picture")
    charge = "no conversion loses anything in the mean over domains"
    if ladder.charged_loss:
        charge = f"charged to {ladder.charged_to}, which loses most in the mean over domains"
    caption = f"what each step loses; a negative loss is a gain; {charge}"
    return Table(headings, rows, caption)
