"""The command `check`: the conversion ladder on a bundle, climbed again on this machine."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from dfkd_edge.commands.options import AsJson, Data, DryMeasurement, MaxDrop, Quiet, Verbose
from dfkd_edge.config.settings import LATEST


def check(
    bundle: Annotated[
        Path,
        typer.Argument(
            metavar="[BUNDLE]", help="Bundle, or run with one.", show_default=str(LATEST)
        ),
    ] = LATEST,
    data: Data = None,
    max_drop: MaxDrop = None,
    dry_run: DryMeasurement = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Climb the conversion ladder on a bundle, with the gate; exit 3 if it fails."""
    from dfkd_edge.console import ConsoleReporter, loading_libraries, make_console
    from dfkd_edge.machine.process import prepare_host
    from dfkd_edge.preflight import plan_check

    pictures = str(data) if data else ""
    opened = plan_check(bundle, pictures)
    console = make_console(quiet)
    reporter = ConsoleReporter(console)
    if dry_run:
        from dfkd_edge.estimates.bundle import dry_check

        sys.stdout.write(dry_check(opened, pictures, max_drop, reporter).text(as_json))
        return
    with loading_libraries(console):
        prepare_host()
        from dfkd_edge import pipeline
        from dfkd_edge.report.page import refresh_report
    ladder = pipeline.check(opened, pictures, max_drop, reporter)
    report = refresh_report(opened.folder, reporter)
    if as_json:
        document = {**ladder.to_json(), "report": report}
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    else:
        from dfkd_edge.commands.ladder_view import check_panel, show_ladder
        from dfkd_edge.console import result_console

        show_ladder(ladder)
        result_console().print(check_panel(opened, ladder, report))
    assert ladder.gate is not None  # a check is always judged
    ladder.gate.require_passed(opened.folder)
