"""Sections about what the student answers: by rung and domain, how surely, and by class."""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from dfkd_edge.report.blocks import Block, Cell, Facts, Figures, Missing, Notes, Section, Table
from dfkd_edge.report.commands import exporting, measuring, run_argument
from dfkd_edge.report.figures import Estimate, interval_figure, reliability_figure
from dfkd_edge.report.gain import gain_blocks
from dfkd_edge.report.sources import Climb, Sources
from dfkd_edge.report.svg import NOTHING, percent
from dfkd_edge.results.class_answers import REFERENCES, pooled_answers
from dfkd_edge.results.ladder import TEACHER, Ladder, MeasuredRung
from dfkd_edge.results.wording import METRICS

NOTES_PLACE = "see the notes below the ladder"
"""Where the page says, once, what the figures of a ladder do not."""
MIB = 1 << 20
MAX_MATRIX, MAX_CLASS_ROWS, MAX_PAIRS = 25, 60, 8
"""Classes of a confusion matrix, rows by class and pairs: more than that nobody reads."""
Answers = Mapping[str, Counter[str]]  # Expected class -> answer -> images


def accuracy_section(sources: Sources) -> Section:
    """Every rung with its interval, and what each step loses."""
    lead = "The same images before and after every conversion, with 95% intervals."
    climbs, blocks = sources.climbs, list[Block]()
    later = [climb for climb in climbs if climb.command != "distill"]  # they hold its rungs
    for same in _by_answers(later or climbs):
        blocks += _ladder_blocks(*same)
    if sources.run and sources.run.evaluation:
        blocks[:0] = gain_blocks(sources.run.evaluation)
    if not any(climb.ladder.gate for climb in climbs):
        blocks.append(Missing("The conversions are not measured yet", exporting(sources)))
    for bundle in sources.stale:
        words = ["--target", bundle.target, "--output", str(bundle.folder), "--exist-ok"]
        command = f"dfkd-edge export {run_argument(sources)} {shlex.join(words)}"
        what = f"Bundle {bundle.folder.name} holds an earlier student and is left out here"
        blocks.append(Missing(what, command))
    return Section(blocks, lead)


def _by_answers(climbs: Sequence[Climb]) -> list[list[Climb]]:
    """Put climbs together in which every rung of a bundle answered the same images alike."""
    groups: list[tuple[object, list[Climb]]] = []
    for climb in climbs:
        rungs = [
            (rung.name, [(name, part.confusion) for name, part in rung.domains.items()])
            for rung in climb.ladder.rungs
        ]
        answers = climb.bundle, climb.ladder.metric, climb.ladder.images, rungs
        known = next((group for shown, group in groups if shown == answers), None)
        if known is None:
            groups.append((answers, [climb]))
        else:
            known.append(climb)
    return [group for _, group in groups]


def _ladder_blocks(climb: Climb, *same: Climb) -> list[Block]:
    """Show a ladder; others with the same answers are named in its caption."""
    ladder, metric = climb.ladder, climb.ladder.metric
    figures = []
    for domain in ladder.shown_domains:
        parts = [(rung.name, rung.domains[domain]) for rung in ladder.rungs]
        estimates = [Estimate(n, part.share(metric), *part.interval(metric)) for n, part in parts]
        figures.append(interval_figure(ladder.label(domain), estimates))
    notes = Notes("to be read with these figures", ladder.caveats())
    losses = [_loss_table(ladder)] if ladder.losses else []
    return [Figures(figures), _rung_table(climb, same), notes, *losses]


def _rung_table(climb: Climb, same: Sequence[Climb] = ()) -> Table:
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
    others = " and ".join(dict.fromkeys(other.command for other in same))
    also = f"; {others} measured the same answers" if same else ""
    return Table(headings, rows, f"{METRICS[ladder.metric]}, {climb.origin}{also}")


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
    as_graph = f"; {rung.onnx_latency_ms:.2f} in ONNX Runtime" if rung.onnx_latency_ms else ""
    timing = Cell(f"{rung.latency_ms:.2f}", rung.runtime + as_graph) if rung.latency_ms else None
    return (
        *cells,
        Cell(percent(ladder.mean(rung))),
        Cell(f"{sum(divergences) / len(divergences):.4f}" if divergences else NOTHING),
        Cell(f"{rung.size_bytes / MIB:.2f}" if rung.size_bytes else NOTHING),
        timing or Cell(NOTHING),
        Cell(str(num_nan), tone="bad" if num_nan else ""),
    )


def _loss_table(ladder: Ladder) -> Table:
    rows = []
    for loss in ladder.losses:
        low, high = (100 * end for end in loss.interval)
        noise = "within noise" if loss.is_within_noise else "beyond noise"
        if not loss.num_lost and not loss.num_won:
            noise = "no change"
        row = (
            Cell(f"{loss.previous} → {loss.rung}"),
            Cell(f"{100 * loss.drop:+.2f}", f"{low:+.2f} to {high:+.2f}"),
            Cell(f"{100 * loss.worst_drop:+.2f}", loss.worst_domain),
            Cell(str(loss.num_lost)),
            Cell(str(loss.num_won)),
            Cell(f"{loss.p_value:.2g}", noise),
        )
        rows.append(row)
    unit = f"{ladder.unit}s lost"
    of_views = " of views" * (ladder.is_heldout_apart and ladder.metric == "agreement")
    worst = f"worst domain{of_views}"
    headings = ("step", "points lost, mean", worst, unit, "won", "p by picture")
    charge = "no conversion loses anything in the mean over domains"
    if ladder.charged_loss:
        charge = f"charged to {ladder.charged_to}, which loses most in the mean over domains"
    caption = f"what each step loses; a negative loss is a gain; {charge}"
    return Table(headings, rows, caption)


def confidence_section(sources: Sources) -> Section:
    """Reliability, by which reference it counts, and what temperature and threshold do."""
    ladders = [climb.ladder for climb in sources.leading]
    figures = [figure for ladder in ladders for figure in _reliability_figures(ladder)]
    if not figures:
        return Section([Missing("Confidences are not measured yet", measuring(sources, "check"))])
    ladder, references = ladders[0], " and by ".join(REFERENCES[one.metric] for one in ladders)
    lead = (
        f"How often {ladder.shipped.name} is right when it is this sure, by {references}. On the "
        "diagonal a confidence keeps its word; a larger point stands for more images."
    )
    fitted: Block = Missing("No temperature is fitted for these logits yet", exporting(sources))
    if confidence := ladder.confidence:
        pairs = (
            ("fitted on", f"{confidence.fitted_on}, to the class asked for"),
            ("temperature", confidence.sentence()),
            ("its effect above", ladder.temperature_effect()),
            ("unknown", confidence.unknown_sentence()),
        )
        fitted = Facts(pairs)
        if ladder.metric == "agreement":
            lead += (
                " The temperature was fitted by another reference, the class that was asked for: "
                "only labelled pictures tell what it does."
            )
    return Section([Figures(figures), fitted], lead)


def _reliability_figures(ladder: Ladder) -> list[Markup]:
    """Draw the confidences as they are; on labelled pictures after temperature too.

    The temperature was fitted to the class asked for: on the teacher's answers its effect would
    contradict what the fit says of it.
    """
    before = ladder.reliability(ladder.shipped)
    if before is None:
        return []
    figures = [reliability_figure(f"by {REFERENCES[ladder.metric]}", before)]
    after = ladder.reliability(ladder.shipped, scaled=True)
    if after and ladder.metric == "top1" and after.temperature != 1:
        title = f"the same, temperature {after.temperature:.2f}"
        figures.append(reliability_figure(title, after))
    return figures


def classes_section(sources: Sources) -> Section:
    """Accuracy by class and domain, and which classes are taken for which."""
    climbs, command = sources.leading, measuring(sources, "check", "--data DIR")
    if not climbs:
        return Section([Missing("Answers by class are not measured yet", command)])
    lead = "Each figure counts what the caption of its table names: pictures with labels first."
    blocks = [block for climb in climbs for block in _class_blocks(climb, sources.classes)]
    if climbs[0].ladder.metric != "top1":
        blocks.append(Missing("True accuracy needs a few labelled pictures", command))
    return Section(blocks, lead if len(climbs) > 1 else "")


def _class_blocks(climb: Climb, classes: tuple[str, ...]) -> list[Block]:
    total = pooled_answers(climb.ladder.shipped, climb.ladder.mean_over)
    blocks: list[Block] = [_class_table(climb, total, classes)]
    if len(classes) <= MAX_MATRIX:
        blocks.append(_confusion_table(climb, total, classes))
    return [*blocks, _pair_table(climb, total)]


def _class_table(climb: Climb, total: Answers, classes: tuple[str, ...]) -> Table:
    """Share right by class and domain, of the classes that are right least often."""
    ladder = climb.ladder
    shipped = [pooled_answers(ladder.shipped, [domain]) for domain in ladder.shown_domains]
    teacher = [pooled_answers(ladder.rung(TEACHER), [name]) for name in ladder.shown_domains]
    # a class without images stands with those that are never right
    weakest = set(sorted(classes, key=lambda name: _right(total, name) or 0)[:MAX_CLASS_ROWS])
    rows = []
    for name in (name for name in classes if name in weakest):
        cells = [Cell(name)]
        for answers, theirs in zip(shipped, teacher, strict=True):
            share, own = _right(answers, name), answers.get(name, Counter())
            note = f"teacher {percent(_right(theirs, name), 0)}" if ladder.metric == "top1" else ""
            hint = f"{own[name]} of {own.total()}" if own else ""
            cells.append(Cell(percent(share), note if own else "", share, hint=hint))
        share, count = _right(total, name), total.get(name, Counter()).total()
        rows.append((*cells, Cell(percent(share), f"of {count:,}" if count else "", share)))
    headings = ("class", *ladder.shown_domains, "domains of the mean, together")
    return Table(headings, rows, _caption(climb, rows, classes))


def _right(answers: Answers, name: str) -> float | None:
    """Share of a class's images that are answered so; None without any."""
    own = answers.get(name)
    return own[name] / own.total() if own else None


def _caption(climb: Climb, rows: Sequence[object], classes: tuple[str, ...]) -> str:
    """Say what a table by class counts, and that rows are left out."""
    metric, is_labelled = climb.ladder.metric, climb.ladder.metric == "top1"
    figure = f"{METRICS[metric].capitalize()} of {climb.ladder.shipped.name}"
    figure += ", the teacher's below it" * is_labelled
    where = "" if is_labelled else " on held-out surrogate images"
    weakest = f"; the {len(rows)} weakest of {len(classes)} classes" * (len(rows) < len(classes))
    return f"{figure}, {climb.origin}. Rows are {REFERENCES[metric]}{where}{weakest}."


def _confusion_table(climb: Climb, total: Answers, classes: tuple[str, ...]) -> Table:
    rows = []
    for name in classes:
        answers = total.get(name, Counter())
        count = max(answers.total(), 1)  # of a class without images every share is 0
        shares = ((answers[other], answers[other] / count) for other in classes)
        rows.append((Cell(name), *(Cell(str(num or "·"), shade=share) for num, share in shares)))
    caption = (
        f"confusion matrix by {climb.command}, {climb.ladder.unit}s: rows are "
        f"{REFERENCES[climb.ladder.metric]}, columns are answers"
    )
    return Table(("", *classes), rows, caption, is_dense=True)


def _pair_table(climb: Climb, total: Answers) -> Table:
    pairs = [
        (count, expected, answer, answers.total())
        for expected, answers in total.items()
        for answer, count in answers.items()
        if answer != expected
    ]
    rows = [
        Cell.row(expected, answer, str(count), percent(count / whole))
        for count, expected, answer, whole in sorted(pairs, key=lambda p: -p[0])[:MAX_PAIRS]
    ]
    headings = ("class", "taken for", f"{climb.ladder.unit}s", "of the class")
    return Table(headings, rows, f"most frequent confusions by {climb.command}")
