"""The tables and the panel that close `distill`."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from dfkd_edge.artifacts import ClassCount
from dfkd_edge.commands.panel import Row, closing_panel, run_step
from dfkd_edge.config.file import load_config
from dfkd_edge.console import result_console
from dfkd_edge.conversion.calibration_need import shortage_of
from dfkd_edge.drawings.drawn_class import read_drawn_class
from dfkd_edge.errors import DfkdEdgeError
from dfkd_edge.results.certainty import certainty_of, gain_text
from dfkd_edge.results.class_answers import weak_classes
from dfkd_edge.results.distilled import Distilled
from dfkd_edge.results.kept import EVALUATION, read_ladder
from dfkd_edge.results.ladder import START, STUDENT, TEACHER, Ladder
from dfkd_edge.results.wording import UNITS, Metric, shown_text
from dfkd_edge.runtime.counting import duration_text, first_few
from dfkd_edge.runtime.plain_text import one_line

MAX_NAMED = 3  # Classes named in a row of the panel


def comparisons(evaluation: Ladder, init: str) -> Iterator[Table]:
    """Show top-1 where pictures are labelled, and agreement everywhere."""
    headings = {START: f"{init} start", STUDENT: "student"}
    labelled = evaluation.metric == "top1"
    if labelled:
        with_teacher = {TEACHER: "teacher", **headings}
        domains = evaluation.shown_domains
        yield _comparison(evaluation, "top-1 accuracy", "top1", domains, with_teacher)
    title = "agreement with the teacher"
    title += "" if labelled else " (no accuracy: nothing is labelled)"
    every = list(evaluation.shipped.domains)
    yield _comparison(evaluation, title, "agreement", every, headings)


def _comparison(
    evaluation: Ladder, title: str, metric: Metric, domains: list[str], rungs: dict[str, str]
) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in ("domain", "images", *rungs.values()):
        table.add_column(heading, justify="left" if heading == "domain" else "right")
    for domain in domains:
        figures = [evaluation.rung(name).domains[domain] for name in rungs]
        shares = (f"{part.share(metric):.1%}" for part in figures)
        table.add_row(escape(one_line(domain)), str(figures[0].num_images), *shares)
    return table


def show_result(result: Distilled, report: str, seconds: float | None, gain: str) -> None:
    """Print the closing tables and panel on standard output.

    Args:
        result: of the finished run.
        report: path of report.html.
        seconds: of the call that made the student; None where it is only shown again.
        gain: what real pictures brought over zero-shot; empty without them.
    """
    for table in comparisons(result.evaluation, result.student.settings.init):
        result_console().print(table)
    settings = result.student.settings
    own, teachers = settings.num_parameters / 1e6, settings.teacher_num_parameters / 1e6
    took = f"; made in {duration_text(seconds)}" if seconds is not None else ""
    size = f"{own:.2f} M parameters (teacher {teachers:.2f} M)"
    rows = (
        accuracy_row(result.evaluation),
        ("baseline", result.evaluation.baseline.sentence() if result.evaluation.baseline else ""),
        ("student", f"{settings.timm_name}: {size}{took}"),
        ("weak", weak_text(result.evaluation, result.surrogates.classes)),
        ("few-shot", gain),
        ("int8", _shortage_text(result.run_dir)),
        ("weights", str(result.student.weights)),
        ("report", report),
        ("next", run_step(result.run_dir, report)),
    )
    title = below_start_text(result.evaluation)
    if title:
        result_console().print(closing_panel(title, rows, "yellow"))
    else:
        result_console().print(closing_panel("student ready", rows))


def below_start_text(ladder: Ladder) -> str:
    """Say that training made the student worse; empty where it did not, or it may be chance."""
    step = next(loss for loss in ladder.losses if (loss.previous, loss.rung) == (START, STUDENT))
    if step.drop <= 0 or step.is_within_noise:
        return ""
    start, student = (100 * ladder.mean(ladder.rung(name)) for name in (START, STUDENT))
    shown = shown_text(ladder.num_images, ladder.num_pictures, UNITS[ladder.metric])
    figures = f"{start:.1f}% -> {student:.1f}% of {shown}"
    return f"student below its start ({figures}): give it more images or steps"


def accuracy_row(ladder: Ladder) -> Row:
    """Say what the shipped rung reached, how sure that is, and how much of the teacher it keeps."""
    found = certainty_of(ladder)
    ends = f"{100 * found.low:.1f} to {100 * found.high:.1f}"
    is_labelled = found.metric == "top1"
    noun = "labelled picture" if is_labelled else "surrogate image"
    shown = shown_text(found.num_images, found.num_pictures, noun)
    text = f"{100 * found.share:.1f}%{' top-1' * is_labelled} ({ends}) on {shown}"
    if found.is_too_wide:
        text += ": too few"
    if not is_labelled:
        return "agreement", f"{text}; --data DIR measures top-1"
    teacher = ladder.mean(ladder.rung(TEACHER))
    kept = f", {found.share / teacher:.1%} of the teacher's" if teacher else ""
    return "accuracy", text + kept


def weak_text(ladder: Ladder, counts: Sequence[ClassCount] = ()) -> str:
    """Name what to look at first: classes answered wrongly, else those that images hardly show."""
    weak = [f"{c.name} ({100 * c.share:.0f}% of {c.num_shown})" for c in weak_classes(ladder)]
    if weak:
        return f"wrong more often than right: {first_few(weak, MAX_NAMED)}"
    unsure = [c.name for c in counts if c.acceptance < 0.5]
    others = [c.name for c in counts if read_drawn_class(c).is_of_others]
    undrawn = [c.name for c in counts if not c.num_drawn or c.num_alike]
    if unsure:
        return (
            f"the teacher doubts most images of {first_few(unsure, MAX_NAMED)}; --images DIR helps"
        )
    if others:
        return f"drawn as something else: {first_few(others, MAX_NAMED)}"
    if undrawn and (len(undrawn) < len(counts) or any(c.num_alike for c in counts)):
        return f"no drawing fits {first_few(undrawn, MAX_NAMED)}, expect less"
    return ""


def _shortage_text(run: Path) -> str:
    shortage = shortage_of(run, load_config(run / "config.toml").export)
    return f"{shortage.brief}: export with {' or '.join(shortage.flags)}" if shortage else ""


def few_shot_gain(run_path: Path, zero_shot_path: Path) -> str:
    """Say how the student compares with that of the same run without real pictures."""
    ours, theirs = (_evaluation(path) for path in (run_path, zero_shot_path))
    gain = gain_text(ours, theirs) if ours and theirs else ""
    return gain or "distill without --images too, and this row says what the pictures brought"


def _evaluation(run_path: Path) -> Ladder | None:
    try:
        return read_ladder(run_path / EVALUATION)
    except DfkdEdgeError:
        return None
