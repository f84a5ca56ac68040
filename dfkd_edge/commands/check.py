"""The command `check`: the conversion ladder on a bundle, climbed again on this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dfkd_edge.commands.options import AsJson, Data, DryMeasurement, MaxDrop, Quiet, Verbose
from dfkd_edge.config.settings import LATEST

if TYPE_CHECKING:
    from dfkd_edge.interfaces import Reporter
    from dfkd_edge.runtime.bundle_files import Bundle


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
        _show_plan(opened, pictures, max_drop, as_json, reporter)
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


def _show_plan(
    bundle: Bundle, data: str, max_drop: float | None, as_json: bool, reporter: Reporter
) -> None:
    from dfkd_edge.commands.ladder_view import check_plan_lines
    from dfkd_edge.estimates.check import plan_check

    plan = plan_check(bundle, data, max_drop, reporter)
    if as_json:
        sys.stdout.write(json.dumps(plan, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in check_plan_lines(plan)))
