"""Top-1 of a bundle on lists that it was not distilled for, after `classes swap`.

python tests/benchmarks/swap_classes.py BUNDLE --list LIST DIR [--list LIST DIR]...

DIR holds labelled pictures, DIR/<class>/*. Each list is swapped in twice, with the head of text
alone and with the one that is fitted to drawings, and FP32 and the shipped graph are shown the
pictures beside the teacher. Nothing is written; the proof of a swap is left out.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from measuring import labelled

from dfkd_edge.bundles.opening import find_bundle, open_bundle
from dfkd_edge.console import ConsoleReporter, make_console
from dfkd_edge.deployment.swap import gather_swap, swapped_graphs
from dfkd_edge.deployment.swap_plan import SwapRequest, plan_swap
from dfkd_edge.interfaces import Runner
from dfkd_edge.networks.runners import TorchRunner
from dfkd_edge.results.ladder import TEACHER
from dfkd_edge.runs.finished import open_finished_run
from dfkd_edge.validation.rungs import open_runner

NUM_SHOWN = 64  # Pictures in memory at the teacher's side


def measured(bundle: Path, listed: Path, data: Path, drawings: bool) -> Iterator[tuple[str, float]]:
    """Swap a list in, and yield what each model gets right of the pictures."""
    with tempfile.TemporaryDirectory() as folder:
        request = SwapRequest(bundle, listed, Path(folder) / "bundle", with_drawings=drawings)
        plan = plan_swap(request)
        run = open_finished_run(plan.run)
        reporter = ConsoleReporter(make_console(quiet=True))
        material, _ = gather_swap(plan, run, Path(folder), reporter)
        graphs = swapped_graphs(plan.source, material)
        side_px = material.student.image_size_px
        runners: dict[str, tuple[Runner, int]] = {
            TEACHER: (TorchRunner(TEACHER, material.teacher), material.teacher.image_size_px),
            **{m.precision: (open_runner(m, 1), side_px) for m in graphs.models},
        }
        for name, (runner, side) in runners.items():
            right = [
                runner(images[at : at + NUM_SHOWN]).logits.argmax(1) == labels[at : at + NUM_SHOWN]
                for _, images, labels in labelled(data, plan.class_names.names, side)
                for at in range(0, len(labels), NUM_SHOWN)
            ]
            yield name, float(np.concatenate(right).mean())


def main() -> None:
    """Print a line a list."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--list", dest="lists", nargs=2, action="append", type=Path, required=True)
    args = parser.parse_args()
    bundle = open_bundle(find_bundle(args.bundle))
    print(f"distilled for {', '.join(bundle.classes)}", flush=True)
    for listed, data in args.lists:
        begun = time.process_time()
        for drawings in (False, True):
            found = dict(measured(bundle.folder, listed, data, drawings))
            teacher = found.pop(TEACHER)
            shares = ", ".join(f"{n} {v:.1%} ({v / teacher:.0%})" for n, v in found.items())
            head = "fitted to drawings" if drawings else "text alone"
            print(f"{listed.stem}, {head}: teacher {teacher:.1%}, {shares}", flush=True)
        print(f"  {time.process_time() - begun:.0f} s of CPU", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
