"""The command `report`."""

import sys
from pathlib import Path
from typing import Annotated

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table
from typer import Argument, Option

from dfkd_edge.commands import options as opt
from dfkd_edge.config.settings import LATEST
from dfkd_edge.console import ConsoleReporter, make_console, result_console
from dfkd_edge.errors import UsageError


def report(
    paths: Annotated[
        list[Path] | None,
        Argument(
            metavar="[RUN] [RESULT.json]...",
            help="A run or bundle, and what check.pyz wrote on devices; the run keeps it. Two runs "
            "are compared.",
            show_default=str(LATEST),
        ),
    ] = None,
    output: Annotated[
        opt.File, Option("--output", "-o", help="The file (default: report.html in the run).")
    ] = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Write report.html: one offline page that shows what the student can do and where it fails.

    Of two runs or bundles: what differs, on the terminal and on a page.
    """
    from dfkd_edge.results.device import OF_ANOTHER
    from dfkd_edge.runs.run_dir import find_run
    from dfkd_edge.runtime.bundle_files import may_be_bundle

    results = [path for path in paths or () if path.suffix == ".json"]
    subjects = [path for path in paths or () if path.suffix != ".json"] or [LATEST]
    if len(subjects) > 2 or (len(subjects) == 2 and results):
        raise UsageError(
            f"{len(subjects)} runs are named, a report is about one, or compares two",
            where=str(subjects[1]),
            hint="results of devices end in .json, and go with one run",
        )
    for subject in subjects:
        if not may_be_bundle(subject):  # told before numpy and jinja2 are loaded
            find_run(subject)
    if len(subjects) == 2:
        _compare(subjects[0], subjects[1], output, as_json)
        return
    from dfkd_edge.report import gather, write_page

    reporter, sources = ConsoleReporter(make_console(quiet)), gather(subjects[0], results)
    written = write_page(sources, output, lambda line: reporter.note(f"  {line}")).resolve()
    for other in sources.other_devices:
        reporter.note(f"  {other.path.name} is {OF_ANOTHER}: shown apart")
    if as_json:
        document = {
            "report": str(written),
            "bytes": written.stat().st_size,
            "ladders": [climb.summary() for climb in sources.climbs],
            "devices": sources.device_summaries,
        }
        opt.print_json(document)
    else:
        sys.stdout.write(f"{written}\n")


def _compare(first: Path, second: Path, output: Path | None, as_json: bool) -> None:
    """Show two runs side by side, and write the page of it."""
    from dfkd_edge.report.compare import compare, write_comparison

    found = compare(first, second)
    if found.first.path == found.second.path:
        raise UsageError("this is one run twice", where=str(second), hint="name another one")
    written = write_comparison(found, output).resolve()
    if as_json:
        opt.print_json({**found.to_json(), "report": str(written)})
        return
    console = result_console()
    for block in found.tables():
        table = Table(title=block.caption, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        for heading in block.headings:
            table.add_column(escape(heading), overflow="fold")
        for row in block.rows:
            notes = (f" ({cell.note})" if cell.note else "" for cell in row)
            texts = (cell.text + note for cell, note in zip(row, notes, strict=True))
            table.add_row(*map(escape, texts))
        console.print(table if block.rows else f"{block.caption}: none")
    for note in found.notes():
        console.print(f"note: {note}", markup=False)
    sys.stdout.write(f"{written}\n")
