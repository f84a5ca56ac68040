"""The study: one command reproduces its table, its intervals and its plot.

python examples/study/study.py --classes LIST --data DIR --pictures PARQUETS --output OUT
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from arms import ARMS, PRETRAINED
from cells import Cell, StudyRequest, run_cell
from forecast import forecast, forecast_text
from results import markdown, write_results

from dfkd_edge.class_names import read_class_names
from dfkd_edge.console import ConsoleReporter, make_console
from dfkd_edge.errors import ConfigError, DfkdEdgeError
from dfkd_edge.interfaces import Reporter
from dfkd_edge.machine.process import check_device, prepare_host
from dfkd_edge.pictures.labelled import find_labelled


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=Path, required=True, help="class list")
    parser.add_argument("--data", type=Path, required=True, help="labelled pictures to measure on")
    parser.add_argument("--output", "-o", type=Path, required=True, help="goes on where it stopped")
    parser.add_argument("--pictures", type=Path, help="parquet folder or photos.npy, for 'real'")
    parser.add_argument("--cells", nargs="+", default=[], metavar="ARM", help=", ".join(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--num-images", type=int, default=2400, help="candidates of every arm")
    parser.add_argument("--num-reference-images", type=int, default=256, help="of per-image")
    parser.add_argument("--steps", type=int, default=600, help="of distillation, in every arm")
    parser.add_argument("--student-init", choices=("random", "pretrained"), default="random")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--set", dest="more", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--dry-run", action="store_true", help="tell how long it takes, and stop")
    parser.add_argument("--quiet", "-q", action="store_true", help="print the table only")
    return parser.parse_args(arguments)


def plan(
    arms: Sequence[str], seeds: Sequence[int], has_pictures: bool, student_init: str = "random"
) -> list[Cell]:
    """List the cells in the order to run: by seed, so that every arm has a figure early.

    What paces a cell comes before it, asked for or not. A teacher has no seed. Arms of the
    pretrained start are left out, unless they are named, where all others have it too.

    Raises:
        ConfigError: there is no such arm, or it needs pictures.
    """
    for arm in arms:
        if arm not in ARMS:
            raise ConfigError(f"no arm '{arm}'", where="--cells", hint=f"one of {', '.join(ARMS)}")
        if ARMS[arm].kind == "real" and not has_pictures:
            raise ConfigError("'real' needs real pictures", where="--cells", hint="add --pictures")
    is_twice = student_init == "pretrained"
    wanted = arms or [
        arm
        for arm in ARMS
        if (has_pictures or ARMS[arm].kind != "real")
        and not (is_twice and arm.endswith(PRETRAINED))
    ]
    cells = [
        Cell(arm, seed)
        for seed in seeds
        for arm in wanted
        if ARMS[arm].kind != "teacher" or seed == seeds[0]
    ]
    return list(dict.fromkeys(c for cell in cells for c in (*cell.needs(), cell)))


def prepare(args: argparse.Namespace) -> tuple[list[Cell], StudyRequest]:
    """Settle what is run, and refuse what cannot be.

    Raises:
        DfkdEdgeError: a request cannot be met.
    """
    cells = plan(args.cells, args.seeds, args.pictures is not None, args.student_init)
    find_labelled(args.data, read_class_names(args.classes).names)
    request = StudyRequest(
        classes=args.classes,
        data=args.data,
        output=args.output,
        pictures=args.pictures,
        num_reference_images=args.num_reference_images,
        overrides=(
            f"device={args.device}",
            f"synthesis.num_images={args.num_images}",
            f"distillation.num_steps={args.steps}",
            f"distillation.student_init={args.student_init}",
            *args.more,
        ),
    )
    for cell in cells:
        request.config(ARMS[cell.arm], cell.seed)  # a wrong setting stops before the first hour
    return cells, request


def run_study(args: argparse.Namespace, command: str, reporter: Reporter) -> dict[str, Any]:
    """Run the cells that are missing; the table is written anew after each.

    Raises:
        DfkdEdgeError: a request cannot be met, or a stage fails.
    """
    cells, request = prepare(args)
    results: dict[str, list[dict[str, Any]]] = {}
    document: dict[str, Any] = {}
    for number, cell in enumerate(cells, 1):
        begun, is_new = time.monotonic(), cell.read(args.output) is None
        result = run_cell(cell, request, reporter)
        results.setdefault(cell.arm, []).append(result)
        document = write_results(results, args.output, command)
        seconds = f"{time.monotonic() - begun:.0f} s" if is_new else "was finished"
        top1 = next(r["by_seed"][-1] for r in document["rows"] if r["arm"] == cell.arm)
        reporter.note(f"cell {number} of {len(cells)}: {cell}: top-1 {top1:.1%}, {seconds}")
    return document


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and print its table; returns the exit code."""
    args = parse(arguments)
    prepare_host()
    given = sys.argv[1:] if arguments is None else arguments
    try:
        check_device(args.device)
        reporter = ConsoleReporter(make_console(args.quiet))
        if args.dry_run:
            cells, request = prepare(args)
            left = [cell for cell in cells if cell.read(args.output) is None]
            print(forecast_text(left, forecast(cells, request, reporter)))
            return 0
        command = shlex.join(["python", "examples/study/study.py", *given])
        document = run_study(args, command, reporter)
    except DfkdEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(markdown(document))
    print(f"{args.output / 'table.md'}, table.json, plot.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
