"""Ten thousand flipped bytes: every one in a file of a bundle is refused by the file's name.

python -m tests.benchmarks.flipped_bundle [BUNDLE] [--flips 10000] [--commands 50] [--seed 0]

Each flip is given to the code with which check.pyz and the commands of the host verify a bundle, in
this process; the last ones to `python3 check.pyz` and `dfkd-edge check` themselves. BUNDLE is
copied; without one a bundle of a few weights is made. Fails where a flip is not refused.
"""

import argparse
import collections
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dfkd_edge.bundles.bundle import write_bundle
from dfkd_edge.runtime.bundle_files import CHECK
from tests.conftest import make_tiny_contents
from tests.damaged.flips import Flipped, drawn_flips, unnoticed


def not_refused(folder: Path, name: str, place: int, more: int) -> list[str]:
    """Give a flip to the commands; returns those that accept it or do not name the file."""
    commands = {
        "python3 check.pyz": [str(folder / CHECK), "--duration", "0"],
        "dfkd-edge check": ["-m", "dfkd_edge", "check", str(folder)],
    }
    missed = []
    with Flipped(folder, name, place, more):
        for title, words in commands.items():
            done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
            if not done.returncode or str(folder / name) not in done.stderr:
                missed.append(f"{title}: exit code {done.returncode}, {done.stderr.strip()[-300:]}")
    return missed


def main() -> None:
    """Flip, verify, count."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", nargs="?", type=Path)
    parser.add_argument("--flips", type=int, default=10_000)
    parser.add_argument("--commands", type=int, default=50, help="of them through real commands")
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
        begun = time.process_time()
        missed = [f"{flip}: {who}" for flip in flips for who in unnoticed(folder, *flip)]
        taken_s = time.process_time() - begun
        sample = flips[len(flips) - options.commands :]
        missed += [f"{flip}: {what}" for flip in sample for what in not_refused(folder, *flip)]
    for file, num in by_file.most_common():
        print(f"{num:>6,} {file}")
    print(f"{len(flips):>6,} flips in {taken_s:.0f} CPU s, {len(sample)} by commands too")
    print(f"{len(missed):>6,} not refused by name", *missed, sep="\n    ")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
