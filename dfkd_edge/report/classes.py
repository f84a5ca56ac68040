"""The section about classes: what the shipped rung answers for each, and which it confuses."""

from collections import Counter
from collections.abc import Mapping, Sequence

from dfkd_edge.report.blocks import Block, Cell, Missing, Section, Table, text_row
from dfkd_edge.report.commands import measuring
from dfkd_edge.report.sources import Climb, Sources
from dfkd_edge.report.svg import percent
from dfkd_edge.results.class_answers import REFERENCES, pooled_answers
from dfkd_edge.results.ladder import TEACHER
from dfkd_edge.results.wording import METRICS

MAX_MATRIX, MAX_CLASS_ROWS, MAX_PAIRS = 25, 60, 8
"""Classes of a confusion matrix, rows by class and pairs: more than that nobody reads."""
Answers = Mapping[str, Counter[str]]  # Expected class -> answer -> images


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
        count = max(answers.total(), 1)
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
        text_row(expected, answer, str(count), percent(count / whole))
        for count, expected, answer, whole in sorted(pairs, key=lambda p: -p[0])[:MAX_PAIRS]
    ]
    headings = ("class", "taken for", f"{climb.ladder.unit}s", "of the class")
    return Table(headings, rows, f"most frequent confusions by {climb.command}")
