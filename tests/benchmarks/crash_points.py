"""Every point at which a command can be cut off: it fails there, is run again, and must end whole.

python tests/benchmarks/crash_points.py --results points.jsonl [--verbs export] [--modes KILL]

python tests/benchmarks/crash_points.py --results pairs.jsonl --meet pair --every 10

Each operation on files of each verb (a write, a rename, ...) fails once in each mode. Verbs are
tried in the order in which they are named, first what each of them does to which file, then what
repeats it; what the results hold already is not tried again, so the same command goes on after a
stop. What a fault has left is tried once: a command that finds the same ends alike.
GLIBC_TUNABLES=glibc.malloc.hugetlb=1 halves what a fork costs.

With --meet something else happens at every so many operations: a second process (pair), SIGTERM
(term), a clock that is ten years ahead or behind (future, past); or once: a disk with little space
(disk, where a point is so many KiB) or one that is read-only (read-only), both of which need root;
faults come beside it where --modes names them. Prints a table, and the points that failed. Needs
Linux on x86-64 and gcc.
"""

import argparse
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # a fork has one thread
sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fixtures.crash_line import VERBS, CrashLine, Trial
from tests.fixtures.crash_remains import TEMPORARY
from tests.fixtures.crash_scenarios import clock_jumps, read_only, small_disk, two_processes
from tests.fixtures.crash_walk import Walk
from tests.fixtures.crash_warmth import warm
from tests.fixtures.file_faults import Mode, why_not

MODES = ("ENOSPC", "EIO", "SHORT", "KILL", "TORN", "FULL")
MEET: dict[str, Callable[[CrashLine, str, int], Trial]] = {
    "pair": two_processes,
    "term": lambda line, verb, at: line.try_point(verb, at, Mode.TERM),
    "future": lambda line, verb, at: clock_jumps(line, verb, at, 10),
    "past": lambda line, verb, at: clock_jumps(line, verb, at, -10),
    "disk": small_disk,
    "read-only": lambda line, verb, _: read_only(line, verb),
}
SPARE_KIB = (0, 64, 1024, 4096, 8192, 16_384)
Point = tuple[str, int, str]
NUMBER = re.compile(TEMPORARY.pattern + r"|\d+")


def points(line: CrashLine, modes: list[str]) -> list[Point]:
    """List every operation of every verb in every mode that suits it."""
    return [
        (verb, at, mode)
        for verb, operations in line.operations.items()
        for at, operation in enumerate(operations, start=1)
        for mode in modes
        if operation.suits(Mode[mode])
    ]


def meetings(line: CrashLine, what: str, every: int) -> list[Point]:
    """List where each verb meets something."""
    if what == "read-only":
        return [(verb, 0, what) for verb in line.operations]
    if what == "disk":
        return [(verb, kib, what) for verb in line.operations for kib in SPARE_KIB]
    return [
        (verb, at, what)
        for verb, operations in line.operations.items()
        for at in range(1, len(operations) + 1, every)
    ]


def known(results: Path) -> Iterator[dict[str, Any]]:
    """Read the trials of earlier calls; the last of a point counts."""
    rows: dict[Point, dict[str, Any]] = {}
    for text in results.read_text(encoding="utf-8").splitlines() if results.is_file() else ():
        row = json.loads(text)
        rows[row["verb"], row["at"], row["mode"]] = row
    yield from rows.values()


def by_site(line: CrashLine, wanted: list[Point]) -> tuple[list[Point], list[Point]]:
    """Put the first point of each site and mode before those that repeat it, verb by verb."""
    seen: set[tuple[str, str, str, str]] = set()
    first, others = list[Point](), list[Point]()
    verbs = list(dict.fromkeys(verb for verb, *_ in wanted))
    for verb, at, mode in sorted(wanted, key=lambda point: (verbs.index(point[0]), point[1])):
        site = (mode, *site_of(line, verb, at))
        (others if site in seen else first).append((verb, at, mode))
        seen.add(site)
    return first, others


def site_of(line: CrashLine, verb: str, at: int) -> tuple[str, str, str]:
    """Tell apart what a verb does to which file: numbers in names are passed over."""
    known = line.operations[verb][at - 1 : at] if at else []
    return (verb, *(("", "") if not known else (known[0].name, NUMBER.sub("N", known[0].path))))


def is_still(line: CrashLine, row: dict[str, Any]) -> bool:
    """Whether a verb does at a point what it did when that was tried: code changes."""
    then = row["operation"]
    site = (row["verb"], then["name"], NUMBER.sub("N", then["path"]))
    return row["mode"] in MEET or site == site_of(line, row["verb"], row["at"])


def rows(line: CrashLine, wanted: list[Point]) -> Iterator[dict[str, Any]]:
    """Try points, faults in the order of the operations; gives their lines of the results."""
    for verb, at, what in (point for point in wanted if point[2] in MEET):
        yield {**asdict(MEET[what](line, verb, at)), "mode": what}
    for verb in dict.fromkeys(verb for verb, *_ in wanted):
        modes: dict[int, list[Mode]] = {}
        for _, at, what in (point for point in wanted if point[0] == verb):
            if what not in MEET:
                modes.setdefault(at, []).append(Mode[what])
        for trial in Walk(line, verb).trials(modes) if modes else ():
            yield {**asdict(trial), "mode": trial.mode.name}


def table(results: Path, wanted: Counter[tuple[str, str]] | None = None) -> str:
    """Count the points tried and passed, by verb and mode."""
    seen: Counter[tuple[str, str]] = Counter()
    passed: Counter[tuple[str, str]] = Counter()
    for row in known(results):
        seen[row["verb"], row["mode"]] += 1
        passed[row["verb"], row["mode"]] += not row["faults"]
    known_modes = [*(mode.name for mode in Mode), *MEET]
    modes = [mode for mode in known_modes if any(name == mode for _, name in seen)]
    lines = [" | ".join(["verb", *modes, "all"])]
    for verb in [*(verb for verb in VERBS if any(name == verb for name, _ in seen)), "all"]:
        cells = []
        for mode in [*modes, "all"]:
            keys = [
                key
                for key in {*seen, *(wanted or ())}
                if verb in ("all", key[0]) and mode in ("all", key[1])
            ]
            cells.append(f"{sum(passed[k] for k in keys)}/{sum(seen[k] for k in keys)}")
            if wanted:
                cells[-1] += f" of {sum(wanted[k] for k in keys)}"
        lines.append(" | ".join([verb, *cells]))
    return "\n".join(lines)


def wanted_points(line: CrashLine, args: argparse.Namespace) -> list[Point]:
    """List what is to be tried, of the faults and of each meeting at most `--sample`."""
    kinds = [meetings(line, what, args.every) for what in args.meet]
    if args.modes:
        kinds.append(points(line, args.modes))
    rng, chosen = random.Random(args.seed), []
    for kind in kinds:
        mine = [point for verb in args.verbs for point in kind if point[0] == verb]
        chosen += rng.sample(mine, min(args.sample, len(mine))) if args.sample else mine
    return chosen


def main() -> int:
    """Try what is not known yet, and print the table; 1 where a point failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--verbs", nargs="+", choices=list(VERBS), default=list(VERBS))
    parser.add_argument("--modes", nargs="*", choices=MODES, help="none: only --meet")
    parser.add_argument("--meet", nargs="+", choices=list(MEET), default=[])
    parser.add_argument("--every", type=int, default=1, help="operations, with --meet")
    parser.add_argument(
        "--sample", type=int, default=0, help="points of all modes, and of a meeting"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="try the failed points once more")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so many")
    args = parser.parse_args()
    if args.modes is None:
        args.modes = [] if args.meet else list(MODES)
    if why_not():
        raise SystemExit(why_not())
    place, until = Path(tempfile.mkdtemp(dir="/dev/shm")), time.monotonic() + 60 * args.minutes
    try:
        with warm():
            last = max(list(VERBS).index(verb) for verb in args.verbs)
            line = CrashLine(place / "line", dict(list(VERBS.items())[: last + 1]))
            wanted = wanted_points(line, args)
            try_all(line, wanted, args, until)
    finally:
        os.chdir("/")
        shutil.rmtree(place, ignore_errors=True)
    print(table(args.results, Counter((verb, mode) for verb, _, mode in wanted)))
    return int(any(row["faults"] for row in known(args.results)))


def try_all(line: CrashLine, wanted: list[Point], args: argparse.Namespace, until: float) -> None:
    """Try each point that the results do not hold, and add it to them."""
    done = {
        (row["verb"], row["at"], row["mode"])
        for row in known(args.results)
        if not (args.again and row["faults"]) and is_still(line, row)
    }
    left = [point for point in wanted if point not in done]
    for row in (row for part in by_site(line, left) for row in rows(line, part)):
        with args.results.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        if row["faults"]:
            print(json.dumps(row), flush=True)
        if time.monotonic() > until:
            break


if __name__ == "__main__":
    raise SystemExit(main())
