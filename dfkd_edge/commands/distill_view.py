"""The tables and the panel that close `distill`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from dfkd_edge.artifacts import ClassCount
from dfkd_edge.commands.next_step import run_step
from dfkd_edge.config.file import load_config
from dfkd_edge.console import result_console
from dfkd_edge.conversion.calibration_need import shortage_of
from dfkd_edge.drawings.drawn_class import read_drawn_class
from dfkd_edge.results.certainty import MEASURES, certainty_line, certainty_of, difference
from dfkd_edge.results.class_answers import weak_classes_lines
from dfkd_edge.results.kept import stand_ins_text
from dfkd_edge.runtime.counting import duration_text, first_few

if TYPE_CHECKING:
    from dfkd_edge.pipeline import DistillResult


def comparisons(evaluation: dict[str, Any], init: str) -> Iterator[Table]:
    """Top-1 where pictures are labelled; agreement everywhere, which is all that surrogates tell.

    The filter keeps the surrogates that the teacher recognises: its own top-1 on them says nothing.
    """
    from dfkd_edge.validation.evaluation_images import HELDOUT_DOMAIN

    rungs = {rung["name"]: rung["domains"] for rung in evaluation["rungs"]}
    columns = {f"{init} start": rungs["student-start"], "student": rungs["student"]}
    labelled = [domain for domain in rungs["student"] if domain != HELDOUT_DOMAIN]
    if labelled:
        with_teacher = {"teacher": rungs["teacher"], **columns}
        yield _comparison("top-1 accuracy", "top1", labelled, with_teacher)
    title = "agreement with the teacher" + (
        "" if labelled else " (no accuracy: nothing is labelled)"
    )
    yield _comparison(title, "agreement", list(rungs["student"]), columns)


def _comparison(
    title: str, measure: str, domains: list[str], columns: dict[str, dict[str, Any]]
) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in ("domain", "images", *columns):
        table.add_column(heading, justify="left" if heading == "domain" else "right")
    for domain in domains:
        figures = [column[domain] for column in columns.values()]
        shares = (f"{figure[measure]:.1%}" for figure in figures)
        table.add_row(escape(domain), str(figures[0]["num_images"]), *shares)
    return table


def lines_of_classes(counts: Iterable[ClassCount]) -> list[str]:
    """Name the classes that a closing panel warns of."""
    classes = sorted(counts, key=lambda c: c.acceptance)
    undrawn = [c.name for c in classes if not c.num_drawn]
    drawn = [read_drawn_class(c) for c in classes]
    others = [f"{each.name} ({each.names()})" for each in drawn if each.is_of_others]
    weak = [c.name for c in classes if c.acceptance < 0.5]
    lines = []
    if undrawn and len(undrawn) < len(classes):
        lines.append(f"undrawn     no drawing fits these, expect less: {first_few(undrawn)}")
    if others:
        lines.append(f"drawn as    what their drawings are named: {first_few(others)}")
    if weak:
        lines.append(
            "unsure      the teacher recognises fewer than half of the candidates of: "
            f"{first_few(weak)}"
        )
        lines += [
            "            the report shows their images; try a more common English name, a prompt",
            "            where there is none, fewer look-alike classes, or --images DIR",
        ]
    return lines


def show_result(result: DistillResult, report: str, seconds: float | None, bought: str) -> None:
    """Print the closing tables and panel on standard output.

    Args:
        result: the finished run.
        report: path of report.html.
        seconds: of the call that made the student; None where it is only shown again.
        bought: what real pictures brought over zero-shot; empty without them.
    """
    console = result_console()
    for table in comparisons(result.evaluation, result.student.settings.init):
        console.print(table)
    settings, surrogates = result.student.settings, result.surrogates.summary
    ratio = settings.teacher_num_parameters / settings.num_parameters
    kept = f"{surrogates.num_images:,} kept of {surrogates.num_candidates:,}"
    drawn, told = sum(c.num_drawn for c in surrogates.classes), stand_ins_text(surrogates)
    lines = [
        f"student     {settings.timm_name}, {settings.num_parameters / 1e6:.2f} M parameters",
        f"size        {ratio:.1f} times fewer parameters than the teacher's image tower",
        f"weights     {result.student.weights}",
        f"images      {kept}, {drawn:,} of them of drawings{told and f'; {told}'}",
        f"diversity   {surrogates.mean_distance_within_class:.3f} mean distance in a class",
        f"report      {report}",
        *([f"time        {duration_text(seconds)}"] if seconds is not None else []),
    ]
    lines += lines_of_classes(surrogates.classes)
    real = surrogates.few_shot
    if real:
        lines.append(
            f"real        {real.num_pictures} pictures of {real.num_classes} classes joined, "
            f"{real.num_copies} times each"
        )
        lines.append(f"few-shot    {bought}")
    if result.evaluation["retention"] is not None:
        lines.insert(
            0, f"retention   {result.evaluation['retention']:.1%} of the teacher's mean top-1"
        )
    elif result.evaluation["rungs"][-1]["mean_top1"] is None:
        lines.append("accuracy    add --data DIR with a few labelled pictures to measure it")
    measured = [certainty_line(result.evaluation), *weak_classes_lines(result.evaluation)]
    place = int(result.evaluation["retention"] is not None)
    lines[place:place] = measured
    shortage = shortage_of(result.run_dir, load_config(result.run_dir / "config.toml").export)
    if shortage:
        lines.append(f"int8        {shortage.what}: {shortage.ways}")
    lines.append(f"next        {run_step(result.run_dir, report)}")
    console.print(
        Panel(escape("\n".join(lines)), title="student ready", title_align="left", expand=False)
    )


def what_they_bought(run_path: Path, twin_path: Path) -> str:
    """Say how the student compares with that of the same run without real pictures.

    Args:
        run_path: the run with pictures.
        twin_path: where the same run without them lies by default.
    """
    ours, theirs = (_evaluation(path) for path in (run_path, twin_path))
    if not ours or not theirs or _pictures_seen(ours) != _pictures_seen(theirs):
        return (
            f"dfkd-edge distill --config {run_path / 'config.toml'} --set few_shot.images= "
            "makes the zero-shot student to compare with"
        )
    student, twin = certainty_of(ours), certainty_of(theirs)
    gain, low, high = (100 * end for end in difference(student, twin))  # no paired record is kept
    chance = ", may be chance" if low <= 0 <= high else ""
    return (
        f"{gain:+.1f} points of mean {MEASURES[student.measure]} over zero-shot (95% interval "
        f"{low:+.1f} to {high:+.1f}, {student.images}{chance}; {twin_path})"
    )


def _evaluation(run_path: Path) -> dict[str, Any]:
    """Read what the student of a run was measured to reach, last of its rungs; empty where not."""
    try:
        document = json.loads((run_path / "evaluation.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}
    return dict(document)


def _pictures_seen(document: dict[str, Any]) -> dict[str, int]:
    domains = document["rungs"][-1]["domains"]
    return {name: figures["num_images"] for name, figures in domains.items()}
