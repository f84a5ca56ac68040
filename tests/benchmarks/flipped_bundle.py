"""Ten thousand flipped bytes: the commands refuse every one by the name of the file it is in.

python -m tests.benchmarks.flipped_bundle [BUNDLE] [--flips 10000] [--fresh 20] [--seed 0]

Each flip is given to `python3 check.pyz` and to `dfkd-edge check`, in forks of processes that have
loaded them; the last ones to processes of their own, too. BUNDLE is copied; without one a bundle of
a few weights is made. Fails where a flip is not refused.
"""

import argparse
import collections
import random
import resource
import shutil
import sys
import tempfile
from pathlib import Path

from dfkd_edge.bundles.bundle import write_bundle
from tests.conftest import make_tiny_contents
from tests.damaged.flips import Commands, drawn_flips, run_fresh


def main() -> None:
    """Flip, run, count."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", nargs="?", type=Path)
    parser.add_argument("--flips", type=int, default=10_000)
    parser.add_argument("--fresh", type=int, default=20, help="of them in processes of their own")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve() / "bundle"
        if options.bundle:
            shutil.copytree(options.bundle, folder)
        else:
            write_bundle(folder, make_tiny_contents(Path(name)))
        flips = list(drawn_flips(folder, options.flips, random.Random(options.seed)))
        by_file = collections.Counter(flip[0] for flip in flips)
        begun_s = _cpu_s()
        with Commands(folder) as commands:
            missed = [f"{flip}: {what}" for flip in flips for what in commands.missed(*flip)]
        taken_s = _cpu_s() - begun_s
        fresh = flips[max(0, len(flips) - options.fresh) :]
        missed += [f"{flip}: {what}" for flip in fresh for what in run_fresh(folder, *flip)]
    for file, num in by_file.most_common():
        print(f"{num:>6,} {file}")
    for (title, end), num in sorted(commands.ends.items()):
        print(f"{num:>6,} {title}: {end}")
    print(f"{len(flips):>6,} flips in {taken_s:.0f} CPU s, {len(fresh)} in fresh processes too")
    print(f"{len(missed):>6,} not refused by name", *missed, sep="\n    ")
    sys.exit(bool(missed))


def _cpu_s() -> float:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(sum(resource.getrusage(kind)[:2]) for kind in kinds)


if __name__ == "__main__":
    main()
