"""What runtimes cost an export: CPU seconds and bytes, without any and with all of a target.

python tests/benchmarks/runtimes_cost.py RUN [--target NAME] [--more FLAGS ...]

The bars are 60 seconds more, and a bundle of four times the size at most.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from measuring import measured

PROGRAM = [sys.executable, "-m", "dfkd_edge"]
MOST_SECONDS, MOST_TIMES = 60.0, 4.0


def exported(run: str, flags: list[str], folder: Path) -> tuple[float, dict[str, int]]:
    """Export once; returns CPU seconds, and bytes by file."""
    command = [*PROGRAM, "export", run, "-o", str(folder), "--json", *flags]
    taken = measured(command, (0, 3))  # 3: the gate failed, the bundle is there
    files = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
    return taken.cpu_seconds, {name: entry["bytes"] for name, entry in files.items()}


def by_runtime(sizes: dict[str, int]) -> dict[str, int]:
    """Bytes of each runtime's folder."""
    found: dict[str, int] = {}
    for name, size in sizes.items():
        if name.startswith("runtimes/"):
            runtime = name.split("/")[1]
            found[runtime] = found.get(runtime, 0) + size
    return found


def main() -> None:
    """Export twice and compare."""
    from dfkd_edge.handover.lookup import list_runtimes, load_runtime
    from dfkd_edge.target_profiles.lookup import load_target

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--target", default="jetson")
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[])
    args = parser.parse_args()
    target = load_target(args.target)
    names = [n for n in list_runtimes() if load_runtime(n).profile.version_on(target)]
    flags = ["--target", args.target, *args.more]
    runtimes = [flag for name in names for flag in ("--runtime", name)]
    with tempfile.TemporaryDirectory() as work:
        bare, bare_sizes = exported(args.run, flags, Path(work, "bare"))
        full, full_sizes = exported(args.run, [*flags, *runtimes], Path(work, "full"))
    for name, size in by_runtime(full_sizes).items():
        print(f"{name:18} {size / 2**20:7.1f} MiB")
    more, times = full - bare, sum(full_sizes.values()) / sum(bare_sizes.values())
    print(f"CPU seconds: {bare:.1f} without, {full:.1f} with {len(names)}: {more:.1f} more")
    print(f"bundle: {sum(bare_sizes.values()) / 2**20:.1f} MiB without, {times:.2f} times with")
    if more > MOST_SECONDS or times > MOST_TIMES:
        raise SystemExit("over the bar")


if __name__ == "__main__":
    main()
