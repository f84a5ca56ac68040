"""The command `report`."""

import sys
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from dfkd_edge.commands import options as opt
from dfkd_edge.config.settings import LATEST
from dfkd_edge.console import ConsoleReporter, make_console
from dfkd_edge.errors import UsageError


def report(
    paths: Annotated[
        list[Path] | None,
        Argument(
            metavar="[RUN] [RESULT.json]...",
            help="A run or bundle, and what check.pyz wrote on devices; the run keeps it.",
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
    """Write report.html: one offline page that shows what the student can do and where it fails."""
    from dfkd_edge.results.device import OF_ANOTHER
    from dfkd_edge.runs.run_dir import find_run
    from dfkd_edge.runtime.bundle_files import may_be_bundle

    results = [path for path in paths or () if path.suffix == ".json"]
    subjects = [path for path in paths or () if path.suffix != ".json"] or [LATEST]
    if len(subjects) > 1:
        raise UsageError(
            f"{len(subjects)} runs are named, a report is about one",
            where=str(subjects[1]),
            hint="results of devices end in .json",
        )
    if not may_be_bundle(subjects[0]):  # told before numpy and jinja2 are loaded
        find_run(subjects[0])
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
