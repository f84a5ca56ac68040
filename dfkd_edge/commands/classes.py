"""The commands `classes lint` and, from its own file, `classes swap`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.markup import escape
from rich.table import Table
from typer import Argument, Option, Typer

from dfkd_edge.commands import options as opt
from dfkd_edge.commands.swap import swap
from dfkd_edge.config.settings import Activation
from dfkd_edge.console import ConsoleReporter, loading_libraries, make_console, result_console
from dfkd_edge.errors import ClassNamesError
from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.plain_text import printable

if TYPE_CHECKING:
    from dfkd_edge.class_lint.findings import ClassListReport, Finding


classes_app = Typer(help="Work with class lists.", no_args_is_help=True)
classes_app.command()(swap)

SHOWN = 12  # Findings in the table; `--json` has all
GOOD_TO_KNOW = " (note)"  # Marks what --strict does not count: the dim style is lost in a pipe


@classes_app.command()
def lint(
    path: Annotated[Path, Argument(metavar="FILE", help="Class list, also of another tool.")],
    teacher: Annotated[str, Option(help="mini, an open_clip name or a local folder.")] = "mini",
    pretrained: Annotated[str, Option(help="open_clip's tag of the teacher's weights.")] = "",
    activation: Annotated[
        Activation, Option(help="gelu or quickgelu, where --pretrained is a file.")
    ] = "auto",
    output: Annotated[
        opt.File, Option("--output", "-o", help="Write the list with the suggested prompts here.")
    ] = None,
    strict: Annotated[
        bool, Option("--strict", help="Leave with exit code 2 when there is a finding.")
    ] = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Tell what the teacher will mix up or misread in a class list, and suggest prompts.

    Findings are advice: with them the exit code is 0, too, unless --strict is given. Those marked
    (note) say what to expect of a list that is right, and --strict leaves them out.
    """
    from dfkd_edge.class_names import read_given_list, translated_text
    from dfkd_edge.config.settings import TeacherConfig
    from dfkd_edge.files import atomic_write

    names, read_as = read_given_list(path)
    console = make_console(quiet)
    if read_as:
        console.print(translated_text(names, read_as), markup=False)
    with loading_libraries(console):
        from dfkd_edge.class_lint.lint import lint_classes

    config = TeacherConfig(name=teacher, pretrained=pretrained, activation=activation)
    report = lint_classes(names, config, ConsoleReporter(console), holds_prompts=not read_as)
    if output:
        atomic_write(output, _improved(report))
        console.print(f"written: {output}", markup=False)
    if as_json:
        opt.print_json(report.to_json())
    else:
        _show(report, path)
    num_to_mend = sum(not finding.is_fine for finding in report.findings)
    if strict and num_to_mend:
        raise ClassNamesError(
            counted(num_to_mend, "finding"),
            where=str(path),
            hint="correct the list, or leave --strict out",
        )


def _improved(report: ClassListReport) -> str:
    """Write the class list again, with the better lines; a prompt of its own stays."""
    classes, better = report.classes, report.better_lines()
    pairs = zip(classes.names, classes.prompts, strict=True)
    lines = [(name, own) if own else better.get(name, (name,)) for name, own in pairs]
    return "".join("\t".join(line) + "\n" for line in lines)


def _show(report: ClassListReport, path: Path) -> None:
    from dfkd_edge.drawings.drawn_class import drawings_text

    console, findings, scale = result_console(), report.findings, report.scale
    title = f"{len(report.classes)} classes"
    table = Table("finding", "names", "what", title=title, title_justify="left")
    table.columns[0].no_wrap = True  # a rule is a word to search for
    for finding in _first_of_each(findings):
        table.add_row(
            f"{finding.rule}{GOOD_TO_KNOW * finding.is_fine}",
            escape(" / ".join(finding.names)),
            escape(finding.text),
            style="dim" if finding.is_fine else None,
        )
    console.print(table if findings else f"[green]{title}, no finding[/green]")
    if len(findings) > SHOWN:
        counts = Counter(finding.rule for finding in findings)
        listed = ", ".join(f"{count} {rule}" for rule, count in counts.items())
        console.print(f"[dim]{len(findings)} in all: {listed}; see --json[/dim]")
    if report.drawn:
        text = drawings_text(report.drawn)
        console.print(
            f"drawings in the memory that images of a class start from: {text}", markup=False
        )
    console.print("most alike to the teacher (predicted confusions):")
    for one, two, cosine in report.pairs[:5]:
        console.print(f"  {cosine:5.2f}  {one} / {two}", markup=False)
    console.print(
        f"[dim]  to compare: synonyms {scale.synonyms:.2f}, such as sofa / couch; siblings "
        f"{scale.siblings:.2f}, such as spoon / fork; unrelated {scale.unrelated:.2f}[/dim]"
    )
    lines = report.better_lines()
    if lines:
        console.print("suggested lines (name, tab, prompt):")
        for line in lines.values():
            sys.stdout.write(printable("\t".join(line)) + "\n")  # rich turns tabs into spaces
        command = f"dfkd-edge classes lint {escape(str(path))} --output FILE"
        console.print(f"[dim]{command} writes them[/dim]")


def _first_of_each(findings: Sequence[Finding]) -> list[Finding]:
    """Pick SHOWN findings: the first of every rule, then the second; in their own order."""
    seen: Counter[str] = Counter()
    turns = []
    for place, finding in enumerate(findings):
        turns.append((seen[finding.rule], place))
        seen[finding.rule] += 1
    return [findings[place] for place in sorted(place for _, place in sorted(turns)[:SHOWN])]
