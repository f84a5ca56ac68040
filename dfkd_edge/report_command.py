"""The command `report`, and how the other commands write the report beside their results."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dfkd_edge.errors import DfkdEdgeError, EnvironmentLackingError, UsageError
from dfkd_edge.options import AsJson, File, Files, Quiet, Verbose

if TYPE_CHECKING:
    from rich.console import Console

LATEST = Path("runs") / "latest"


def report(
    paths: Annotated[
        Files,
        typer.Argument(
            metavar="[RUN] [RESULT.json]...",
            help="A run or bundle, and what check.pyz wrote on devices; the run keeps it.",
            show_default="runs/latest",
        ),
    ] = None,
    output: Annotated[
        File, typer.Option("--output", "-o", help="The file (default: report.html in the run).")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write report.html: one offline page that shows what the student can do and where it fails."""
    from dfkd_edge.console import make_console
    from dfkd_edge.device_results import OF_ANOTHER
    from dfkd_edge.run_dir import find_run
    from dfkd_edge.runtime.bundle_files import may_be_bundle

    results = [path for path in paths or () if path.suffix == ".json"]
    subjects = [path for path in paths or () if path.suffix != ".json"] or [LATEST]
    if len(subjects) > 1:
        raise UsageError(
            f"{len(subjects)} runs are named, a report is about one",
            where=str(subjects[1]),
            hint="results of devices end in .json",
        )
    if not may_be_bundle(subjects[0]):
        find_run(subjects[0])
    from dfkd_edge.report import gather, write_page
    from dfkd_edge.report.ladder_view import read_ladders

    console, sources = make_console(quiet), gather(subjects[0], results)
    written = write_page(sources, output, _teller(console)).resolve()
    for other in sources.other_devices:
        console.print(f"  {other.path.name} is {OF_ANOTHER}: shown apart", markup=False)
    if as_json:
        document = {
            "report": str(written),
            "bytes": written.stat().st_size,
            "ladders": [ladder.summary() for ladder in read_ladders(sources)],
            "devices": sources.device_summaries,
        }
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(f"{written}\n")


def keep_document(path: Path, document: dict[str, Any], console: Console) -> None:
    """Keep what was measured in a bundle, for its report; a read-only bundle is no fault."""
    from rich.markup import escape

    from dfkd_edge.run_dir import atomic_write

    try:
        atomic_write(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    except EnvironmentLackingError as error:
        console.print(f"  not kept: {escape(str(error))}")


def refresh_report(path: Path, console: Console) -> str:
    """Write the report of a run or bundle again; returns its path, or why there is none."""
    from rich.markup import escape

    from dfkd_edge.report import write_report

    try:
        return str(write_report(path, say=_teller(console)))
    except DfkdEdgeError as error:  # what was measured is worth more than its picture
        console.print(f"  no report: {escape(str(error))}")
        return "not written"


def _teller(console: Console) -> Callable[[str], None]:
    """Show each line of the report's `say`, as plain text."""
    return lambda line: console.print(f"  {line}", markup=False)
