"""The command `classes swap`: a finished bundle with other classes, without training."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from dfkd_edge.commands import options as opt
from dfkd_edge.console import ConsoleReporter, loading_libraries, make_console, result_console
from dfkd_edge.errors import GateFailedError

if TYPE_CHECKING:
    from rich.panel import Panel

    from dfkd_edge.deployment.swap_plan import SwapPlan
    from dfkd_edge.results.gate import Gate
    from dfkd_edge.results.ladder import Ladder
    from dfkd_edge.runtime.bundle_files import Bundle


def swap(
    bundle: opt.BundleFolder,
    classes: Annotated[
        Path, Option("--classes", help="The new list: one name a line, or YOLO's and such.")
    ],
    output: Annotated[
        opt.File,
        Option("--output", "-o", help="The new bundle (default: a folder in RUN/swapped)."),
    ] = None,
    drawings: Annotated[
        bool,
        Option(
            "--drawings/--no-drawings",
            help="Fit the head to drawings of new names, or leave it to the text alone.",
        ),
    ] = True,
    max_drop: opt.HeldMaxDrop = None,
    exist_ok: opt.ExistOk = False,
    sign: opt.Sign = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Give a bundle other classes without training; exit 3 if its gate fails.

    The teacher's text tower makes the new head, and named drawings correct it. The bundle stays.
    The student has learnt from no image of new names: expect less than of a distilled list.
    """
    from dfkd_edge.deployment.swap_plan import SwapRequest, plan_swap
    from dfkd_edge.machine.process import prepare_host

    plan = plan_swap(SwapRequest(bundle, classes, output, max_drop, exist_ok, drawings, sign))
    console = make_console(quiet)
    reporter = ConsoleReporter(console)
    if plan.list_read_as:
        from dfkd_edge.class_names import translated_text

        reporter.note(translated_text(plan.class_names, plan.list_read_as))
    with loading_libraries(console):
        prepare_host()
        from dfkd_edge import pipeline
        from dfkd_edge.report.page import refresh_report
        from dfkd_edge.results.kept import proof_of
    made = pipeline.swap(plan, reporter)
    proof, report = proof_of(made), refresh_report(made.folder, reporter)
    if as_json:
        provenance = made.manifest.provenance
        head = {"bundle": str(made.folder), "status": made.manifest.status}
        opt.print_json({**proof.to_json(), **head, "swap": provenance["swap"], "report": report})
    else:
        from dfkd_edge.commands.ladder_view import show_ladder

        show_ladder(proof)
        result_console().print(_panel(made, plan, proof, report))
    assert proof.gate is not None  # a swap is always judged
    if not proof.gate.passed:
        raise GateFailedError(
            f"gate failed: {proof.gate.sentence()}",
            where=str(made.folder),
            hint=f"the bundle is kept, marked failed; {way_out(plan, proof.gate)}",
        )


def way_out(plan: SwapPlan, gate: Gate) -> str:
    """Say what helps where the gate failed: a swap repairs no graph, as `export` does."""
    ways = ["distill the new list", "swap with a larger --max-drop and --exist-ok"]
    others = [name for name in ("fp16", "fp32") if name in plan.target.precisions]
    if gate.rung.endswith("int8") and others:
        from dfkd_edge.bundles.origin import read_origin

        named = read_origin(plan.source).config.target
        folder = plan.run / "bundles" / f"{plan.target.name}-{others[0]}"
        flags = ("--target", named, "--precision", others[0], "-o", str(folder))
        command = shlex.join(("dfkd-edge", "export", str(plan.run), *flags))
        ways.insert(0, f"a swap repairs no INT8: {command}, and swap that one")
    return "; or ".join(ways)


def _panel(bundle: Bundle, plan: SwapPlan, ladder: Ladder, report: str) -> Panel:
    """Close with what was swapped, what it cost, and how to learn more."""
    from dfkd_edge.bundles.origin import read_origin
    from dfkd_edge.commands.distill_view import accuracy_row
    from dfkd_edge.commands.ladder_view import GATE_COLOURS, gate_text, speed_text
    from dfkd_edge.commands.panel import closing_panel
    from dfkd_edge.runtime.counting import first_few

    swap, gate = read_origin(bundle).swap, ladder.gate
    assert swap is not None  # this command writes no other bundle
    assert gate is not None
    new = f"; not learnt: {first_few(swap.unlearnt, 4)}" if swap.unlearnt else ""
    check = ("dfkd-edge", "check", str(bundle.folder))
    rows = (
        ("classes", f"{len(bundle.classes)}, without training{new}"),
        ("head", swap.fit_sentence()),
        ("cost", swap.cost_sentence()),
        ("gate", gate_text(gate)),
        accuracy_row(ladder),
        ("size", speed_text(ladder)),
        ("bundle", str(bundle.folder)),
        ("report", report),
        (
            "next",
            f"{shlex.join(check)} --data DIR measures it" if gate.passed else way_out(plan, gate),
        ),
    )
    colour = GATE_COLOURS.get(gate.state, "yellow" if swap.is_doubtful else "green")
    return closing_panel(f"classes swapped; {gate.headline()}", rows, colour)
