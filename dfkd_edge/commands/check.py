"""The command `check`: the conversion ladder on a bundle, climbed again on this machine."""

import sys
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from dfkd_edge.commands import options as opt
from dfkd_edge.config.settings import LATEST
from dfkd_edge.console import ConsoleReporter, loading_libraries, make_console, result_console
from dfkd_edge.errors import UsageError
from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.runtime.plain_text import printable


def check(
    bundle: Annotated[Path, Argument(metavar="[BUNDLE]", help="Bundle, or run with one.")] = LATEST,
    data: opt.Data = None,
    max_drop: opt.HeldMaxDrop = None,
    verify: Annotated[
        opt.File,
        Option(
            help="Whom the bundle must be signed by: public key of an elliptic curve (P-256, "
            "P-384, P-521), PEM.",
            show_default=False,
        ),
    ] = None,
    device: opt.ProofDevice = None,
    frame: Annotated[
        Path | None,
        Option(
            help="Judge what a pipeline hands to the network, and nothing else: an array as "
            "numpy.save writes it (.npy), or the plain bytes of one frame without a header, "
            "float32 or uint8, NCHW or NHWC, RGBA or NV12, told by their number.",
            show_default=False,
        ),
    ] = None,
    runtime: Annotated[
        str, Option(metavar="NAME", help="Whose pipeline the --frame is of.", show_default=False)
    ] = "",
    dry_run: opt.DryMeasurement = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Climb the conversion ladder on a bundle, with the gate; exit 3 if it fails."""
    from dfkd_edge.machine.process import prepare_host
    from dfkd_edge.preflight import plan_check

    if frame or runtime:
        others = {"--data": data, "--max-drop": max_drop, "--device": device, "--dry-run": dry_run}
        given = [name for name, value in others.items() if value not in (None, False)]
        if given:
            raise UsageError("a frame is judged alone", where=given[0], hint="leave it out")
        _judge_frame(plan_check(bundle, "", verify), frame, runtime, as_json, quiet)
        return
    pictures = str(data) if data else ""
    opened = plan_check(bundle, pictures, verify)
    console = make_console(quiet)
    reporter = ConsoleReporter(console)
    if verify:
        reporter.note(f"  signature: made with the key of {verify}, and nothing was changed since")
    if dry_run:
        from dfkd_edge.estimates.bundle import dry_check

        sys.stdout.write(dry_check(opened, pictures, max_drop, reporter).text(as_json))
        return
    with loading_libraries(console):
        prepare_host()  # before torch: OpenMP reads its wait policy once, when it is loaded
        from dfkd_edge import pipeline
        from dfkd_edge.report.page import refresh_report
    ladder = pipeline.check(opened, pictures, max_drop, reporter, device or "cpu")
    report = refresh_report(opened.folder, reporter)
    if as_json:
        opt.print_json({**ladder.to_json(), "report": report})
    else:
        from dfkd_edge.commands.ladder_view import bundle_panel, show_ladder

        show_ladder(ladder)
        result_console().print(bundle_panel(opened, ladder, report, is_check=True))
    assert ladder.gate is not None  # a check is always judged
    ladder.gate.require_passed(opened.folder)


def _judge_frame(
    bundle: Bundle, frame: Path | None, runtime: str, as_json: bool, quiet: bool
) -> None:
    """Say what is wrong with one frame, as check.pyz does on the device; exit 3 if anything is."""
    from dfkd_edge.runtime.frame_check import FrameRequest, judge_frame

    if not frame:
        raise UsageError("nothing says which frame", where="--runtime", hint="add --frame FILE")
    result = judge_frame(bundle, FrameRequest(frame, runtime))
    if as_json:
        opt.print_json(result.to_json())
    elif not quiet:
        sys.stdout.write("".join(f"{printable(line)}\n" for line in result.lines()))
    for fault in result.faults:
        raise fault
