"""The command `classes lint`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfkd_edge.options import AsJson, File, Quiet, Verbose

if TYPE_CHECKING:
    from dfkd_edge.class_lint import ClassListReport
    from dfkd_edge.class_names import ClassNames

classes_app = typer.Typer(help="Work with class lists.", no_args_is_help=True)

SHOWN = 12


@classes_app.command()
def lint(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Class list.")],
    teacher: Annotated[
        str, typer.Option(help="mini, an open_clip name or a local folder.")
    ] = "mini",
    pretrained: Annotated[str, typer.Option(help="open_clip's tag of the teacher's weights.")] = "",
    output: Annotated[
        File,
        typer.Option("--output", "-o", help="Write the list with the suggested prompts here."),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Tell what the teacher will mix up or misread in a class list, and suggest prompts."""
    from dfkd_edge.class_names import read_class_names
    from dfkd_edge.config import TeacherConfig
    from dfkd_edge.console import ConsoleReporter, loading_libraries, make_console
    from dfkd_edge.run_dir import atomic_write

    names = read_class_names(path)
    console = make_console(quiet)
    with loading_libraries(console):
        from dfkd_edge.class_lint import as_document, lint_classes

    config = TeacherConfig(name=teacher, pretrained=pretrained)
    report = lint_classes(names, config, ConsoleReporter(console))
    if output:
        atomic_write(output, _improved(names, report))
        console.print(f"written: {output}", markup=False)
    if as_json:
        sys.stdout.write(json.dumps(as_document(names, report), ensure_ascii=False) + "\n")
    else:
        _show(names, report, path)


def _improved(names: ClassNames, report: ClassListReport) -> str:
    lines = []
    for name, own in zip(names.names, names.prompts, strict=True):
        prompt = own or report.suggested_prompts.get(name)
        lines.append(f"{name}\t{prompt}" if prompt else name)
    return "\n".join(lines) + "\n"


def _show(names: ClassNames, report: ClassListReport, path: Path) -> None:
    from rich.markup import escape
    from rich.table import Table

    from dfkd_edge.console import result_console

    console = result_console()
    table = Table("finding", "names", "what", title=f"{len(names)} classes", title_justify="left")
    table.columns[0].no_wrap = True
    for finding in report.findings[:SHOWN]:
        table.add_row(finding.rule, escape(" / ".join(finding.names)), escape(finding.text))
    if report.findings:
        console.print(table)
    else:
        console.print(f"[green]{len(names)} classes, no finding[/green]")
    if len(report.findings) > SHOWN:
        console.print(f"[dim]and {len(report.findings) - SHOWN} more, see --json[/dim]")
    console.print("most alike to the teacher (predicted confusions):")
    for one, two, cosine in report.pairs[:5]:
        console.print(f"  {cosine:5.2f}  {one} / {two}", markup=False)
    scale = report.scale
    console.print(
        f"[dim]  to compare: synonyms {scale.synonyms:.2f}, such as sofa / couch; siblings "
        f"{scale.siblings:.2f}, such as spoon / fork; unrelated {scale.unrelated:.2f}[/dim]"
    )
    if report.suggested_prompts:
        console.print("suggested lines (name, tab, prompt):")
        for name, prompt in report.suggested_prompts.items():
            sys.stdout.write(f"{name}\t{prompt}\n")
        console.print(
            f"[dim]dfkd-edge classes lint {escape(str(path))} --output FILE writes them[/dim]"
        )
