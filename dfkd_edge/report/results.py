"""Sections about what the student can do: verdict, ladder, classes."""

from __future__ import annotations

import dataclasses
import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any

from dfkd_edge.artifacts import StudentSettings
from dfkd_edge.report.blocks import (
    Block,
    Cell,
    Figures,
    Missing,
    Notes,
    Section,
    Table,
    Tile,
    VerdictView,
    text_row,
)
from dfkd_edge.report.figures import Estimate, interval_figure
from dfkd_edge.report.ladder_view import (
    NOTES_PLACE,
    TEACHER,
    LadderView,
    exporting,
    leading_ladders,
    measuring,
    read_ladders,
    run_argument,
)
from dfkd_edge.report.sources import BundleSource, Document, Sources
from dfkd_edge.report.speed import speed_tiles
from dfkd_edge.report.svg import NOTHING, percent
from dfkd_edge.results.certainty import (
    certainty_of,
    domain_label,
    domains_of,
    gate_headline,
    gate_state,
    gate_word,
    ladder_notes,
    limit_text,
    unit_of,
    whole_text,
)
from dfkd_edge.results.class_answers import pooled_answers, truth_of, weak_classes_sentence

MIB = 1 << 20
MAX_MATRIX, MAX_CLASS_ROWS, MAX_PAIRS = 25, 60, 8


def verdict(sources: Sources) -> VerdictView:
    """Say first what came out."""
    ladders, student = read_ladders(sources), sources.student
    if not student:
        count = Tile("Classes", str(len(sources.classes)), "no student yet")
        sentence = "The run has no finished student."
        return VerdictView("open", "Not distilled yet", sentence, (count,))
    num = f"{student.num_parameters / 1e6:.2f} M parameters"
    tiles = [Tile("Student", student.timm_name, num)]
    if not ladders:
        return VerdictView("open", "Not measured yet", "No ladder was climbed.", tuple(tiles))
    ladder = ladders[0]
    tiles += [*_size_tiles(ladder, student), *speed_tiles(ladder, sources), _retention_tile(ladder)]
    measured = certainty_of(ladder.document)
    doubt = _measured_sentences(sources)
    gate = ladder.document.get("gate")
    if not gate:
        tiles.append(Tile("Gate", NOTHING, "not exported"))
        next_step = f"Next: {exporting(sources)}"
        view = VerdictView("open", "Distilled, not exported", next_step, tuple(tiles))
    else:
        tiles.append(
            Tile(
                "Gate",
                ("off" if gate.get("off") else gate_word(gate).lower()),
                limit_text(gate["max_drop"]),
            )
        )
        headline = gate_headline(gate, ladder.target)
        headline = headline[:1].upper() + headline[1:]
        view = VerdictView(gate_state(gate), headline, gate["sentence"], tuple(tiles))
    return dataclasses.replace(
        view,
        certainty=doubt,
        weak_classes=weak_classes_sentence(ladder.document),
        is_doubtful=measured.is_too_wide,
    )


def _measured_sentences(sources: Sources) -> str:
    """Sum up the ladder of the verdict and, where that is of labelled pictures, the other one."""
    sentences = []
    for ladder in leading_ladders(sources):
        document = ladder.document
        data, measured = document.get("data"), str(document.get("time", ""))[:10]
        place = (f", {data}" if data else "") + (f", {measured}" if measured else "")
        figure = f"{certainty_of(document).sentence()}{whole_text(document)}"
        sentences.append(f"Measured by {ladder.command}{place}: {figure}.")
    return " ".join(sentences)


def _size_tiles(ladder: LadderView, student: StudentSettings) -> list[Tile]:
    teacher, last = ladder.rung(TEACHER), ladder.last
    size, teacher_size = last.get("size_bytes"), teacher.get("size_bytes")
    if not (size and teacher_size):
        size, teacher_size = 4 * student.num_parameters, 4 * student.teacher_num_parameters
    ratio = f"{teacher_size / size:.1f} times smaller"
    note = f"{ratio} than the teacher's {teacher_size / MIB:.1f} MiB"
    note += f"; {NOTES_PLACE}" if ladder.document.get("notes") else ""
    return [Tile("Size", f"{size / MIB:.2f} MiB", note)]


def _retention_tile(ladder: LadderView) -> Tile:
    share, teacher = ladder.mean(ladder.last), ladder.mean(ladder.rung(TEACHER))
    measured = certainty_of(ladder.document)
    span = f"({100 * measured.low:.1f} to {100 * measured.high:.1f})"
    if ladder.measure == "top1":
        note = f"top-1 {percent(share)} {span} against the teacher's {percent(teacher)}, "
        note += f"mean over domains, {measured.images}"
        return Tile("Retention", percent(share / teacher if teacher else None), note)
    note = f"{span} same answer as the teacher, {measured.images}{whole_text(ladder.document)}"
    return Tile("Agreement", percent(share), note)


def ladder_section(sources: Sources) -> Section:
    """Every rung with its interval, and what each step loses."""
    lead = "The same images before and after every conversion, with 95% intervals."
    blocks: list[Block] = []
    for ladder in read_ladders(sources):
        if ladder.command == "distill" and blocks:
            continue  # the later ladders hold these rungs
        blocks += _ladder_blocks(ladder)
    if not any(ladder.document.get("gate") for ladder in read_ladders(sources)):
        blocks.append(Missing("The conversions are not measured yet", exporting(sources)))
    blocks += [_stale_bundle(bundle, run_argument(sources)) for bundle in sources.stale]
    return Section("ladder", "Conversion ladder", lead, tuple(blocks))


def _stale_bundle(bundle: BundleSource, run: str) -> Missing:
    name, target = bundle.folder.name, shlex.quote(str(bundle.manifest.get("target", "")))
    command = f"dfkd-edge export {run} --target {target}"
    command += f" --output {shlex.quote(str(bundle.folder))} --exist-ok"
    return Missing(f"Bundle {name} holds an earlier student and is left out here", command)


def _ladder_blocks(ladder: LadderView) -> list[Block]:
    figures = [
        interval_figure(
            domain_label(ladder.document, domain),
            [
                Estimate(r["name"], ladder.share(r, domain), *ladder.interval(r, domain))
                for r in ladder.rungs
            ],
        )
        for domain in ladder.domains
    ]
    count = len(domains_of(ladder.document))
    mean = "mean" if count == len(ladder.domains) else f"mean of {count}"
    headings = (
        "rung",
        *map(ladder.label, ladder.domains),
        mean,
        "MiB",
        "ms on this host",
        "not finite",
    )
    rows = tuple(_rung_row(ladder, rung) for rung in ladder.rungs)
    caption = f"{ladder.measure_name}, {ladder.origin}"
    blocks: list[Block] = [Figures(tuple(figures)), Table(headings, rows, caption)]
    notes = ladder_notes(ladder.document)
    if notes:
        blocks.append(Notes("to be read with these figures", tuple(notes)))
    losses = ladder.document.get("losses")
    if losses:
        blocks.append(_loss_table(losses, unit_of(ladder.document)))
    return blocks


def _rung_row(ladder: LadderView, rung: Document) -> tuple[Cell, ...]:
    parts = rung["domains"]
    cells = [Cell(str(rung["name"]))]
    for domain in ladder.domains:
        low, high = ladder.interval(rung, domain)
        note = f"{percent(low)} to {percent(high)}" if low < high else ""
        cells.append(Cell(percent(ladder.share(rung, domain)), note))
    size, latency = rung.get("size_bytes"), rung.get("latency_ms")
    num_nan = sum(part.get("num_nan", 0) for part in parts.values())
    return (
        *cells,
        Cell(percent(ladder.mean(rung))),
        Cell(f"{size / MIB:.2f}" if size else NOTHING),
        Cell(f"{latency:.2f}" if latency else NOTHING, _timing_note(ladder, rung)),
        Cell(str(num_nan), tone="bad" if num_nan else ""),
    )


def _timing_note(ladder: LadderView, rung: Document) -> str:
    """Say what ran a rung that was timed, and the time of the teacher in the other runtime."""
    if not rung.get("latency_ms"):
        return ""
    as_graph = rung.get("onnx_latency_ms")
    return ladder.runtime(rung) + (f"; {as_graph:.2f} in ONNX Runtime" if as_graph else "")


def _loss_table(losses: list[Document], unit: str) -> Table:
    rows = []
    for loss in losses:
        low, high = (100 * value for value in loss["interval"])
        noise = "within noise" if loss["within_noise"] else "beyond noise"
        if not loss["num_lost"] and not loss["num_won"]:
            noise = "no change"
        rows.append(
            (
                Cell(f"{loss['previous']} → {loss['rung']}"),
                Cell(f"{100 * loss['drop']:+.2f}", f"{low:+.2f} to {high:+.2f}"),
                Cell(f"{100 * loss['worst_drop']:+.2f}", str(loss["worst_domain"])),
                Cell(str(loss["num_lost"])),
                Cell(str(loss["num_won"])),
                Cell(f"{loss['p_value']:.2g}", noise),
            )
        )
    headings = ("step", "points lost, mean", "worst domain", f"{unit}s lost", "won", "p by picture")
    return Table(headings, tuple(rows), "what each step loses; a negative loss is a gain")


def classes_section(sources: Sources) -> Section:
    """Accuracy by class and domain, and which classes are taken for which."""
    ladders = leading_ladders(sources)
    command = measuring(sources, "check", "--data DIR")
    again = Missing("Answers by class are not in these files yet", command)
    title = "Domains and classes"
    if not ladders:
        return Section("classes", title, "", (again,))
    lead = "Each figure counts what the caption of its table names: pictures with labels first."
    tables = [block for one in ladders for block in _class_blocks(one, sources.classes)]
    blocks: tuple[Block, ...] = tuple(tables) if tables else (again,)
    if ladders[0].measure != "top1":
        blocks += (Missing("True accuracy needs a few labelled pictures", command),)
    return Section("classes", title, lead if len(ladders) > 1 else "", blocks)


def _class_blocks(ladder: LadderView, classes: tuple[str, ...]) -> list[Block]:
    last, teacher = ladder.last, ladder.rung(TEACHER)
    columns = [*ladder.domains]
    shown = [pooled_answers(last, [d]) for d in columns]
    theirs = [pooled_answers(teacher, [d]) for d in columns]
    total = pooled_answers(last, domains_of(ladder.document))
    if total is None:
        return []

    def right(table: Any, name: str) -> float | None:
        answers = (table or {}).get(name)
        return answers[name] / answers.total() if answers else None

    order = sorted(classes, key=lambda n: right(total, n) or 0.0)[:MAX_CLASS_ROWS]
    listed = [name for name in classes if name in set(order)]
    rows = []
    for name in listed:
        cells = [Cell(name)]
        for own, other in zip(shown, theirs, strict=True):
            share, reference = right(own, name), right(other, name)
            note = f"teacher {percent(reference, 0)}" if ladder.measure == "top1" else ""
            cells.append(
                Cell(
                    percent(share),
                    note if share is not None else "",
                    share,
                    hint=_count_text((own or {}).get(name), name),
                )
            )
        share, count = right(total, name), (total.get(name) or Counter()).total()
        cells.append(Cell(percent(share), f"of {count:,}" if count else "", share))
        rows.append(tuple(cells))
    headings = ("class", *columns, "domains of the mean, together")
    blocks: list[Block] = [Table(headings, tuple(rows), _classes_caption(ladder, rows, classes))]
    if len(classes) <= MAX_MATRIX:
        blocks.append(_confusion_table(ladder, total, classes))
    blocks.append(_pair_table(ladder, total))
    return blocks


def _classes_caption(ladder: LadderView, rows: Sequence[object], classes: tuple[str, ...]) -> str:
    """Say what a table by class counts, and that rows are left out."""
    is_labelled = ladder.measure == "top1"
    figure = f"{ladder.measure_name.capitalize()} of {ladder.last['name']}"
    figure += ", the teacher's below it" * is_labelled
    where = "" if is_labelled else " on held-out surrogate images"
    weakest = f"; the {len(rows)} weakest of {len(classes)} classes" * (len(rows) < len(classes))
    return f"{figure}, {ladder.origin}. Rows are {truth_of(ladder.document)}{where}{weakest}."


def _count_text(answers: Counter[str] | None, name: str) -> str:
    return f"{answers[name]} of {answers.total()}" if answers else ""


def _confusion_table(ladder: LadderView, total: dict[str, Any], classes: tuple[str, ...]) -> Table:
    rows = []
    for name in classes:
        answers = total.get(name)
        count = answers.total() if answers else 0
        cells = [Cell(name)]
        for other in classes:
            number = answers[other] if answers else 0
            cells.append(Cell(str(number) if number else "·", shade=number / count if count else 0))
        rows.append(tuple(cells))
    caption = (
        f"confusion matrix by {ladder.command}, {unit_of(ladder.document)}s: rows are "
        f"{truth_of(ladder.document)}, columns are answers"
    )
    return Table(("", *classes), tuple(rows), caption, is_dense=True)


def _pair_table(ladder: LadderView, total: dict[str, Any]) -> Table:
    pairs = [
        (count, expected, answer, answers.total())
        for expected, answers in total.items()
        for answer, count in answers.items()
        if answer != expected
    ]
    rows = tuple(
        text_row(expected, answer, str(count), percent(count / whole))
        for count, expected, answer, whole in sorted(pairs, key=lambda p: -p[0])[:MAX_PAIRS]
    )
    headings = ("class", "taken for", f"{unit_of(ladder.document)}s", "of the class")
    return Table(headings, rows, f"most frequent confusions by {ladder.command}")
