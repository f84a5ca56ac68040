"""Ten thousand damaged inputs: what is read from elsewhere, fuzzed under the eyes of coverage.

python -m tests.benchmarks.damaged_inputs [--inputs 12000] [--seed 1] [TARGET ...]

Each target runs in a process of its own under atheris (pip install atheris): inputs that reach new
lines of the product are damaged further, half of them in their form and half in their bytes. Prints
inputs, CPU seconds and faults of each target; a fault ends the command with exit code 1, and its
input lies in --found. `--keep` adds what was found, and the smallest inputs that reach other lines,
to the corpus of the tests.
"""

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAX_INPUT_BYTES = 1 << 18
HARD_LIMIT_S = 60  # Of one input: beyond it nothing returns to be measured
MAX_ADDRESSES = 8 << 30  # More than the process has: one input must not fill the machine
CORPUS_BYTES, CORPUS_INPUTS = 24_000, 40  # Packed, of one target


def child(name: str, num_inputs: int, seed: int, place: Path) -> None:
    """Fuzz one target in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=["dfkd_edge", "PIL"]):
        from tests.damaged.every import find_target

        target = find_target(name)
    from tests.damaged.corpus import kept
    from tests.damaged.watch import fault_of

    corpus, scratch = place / "corpus", place / "scratch"
    scratch.mkdir()
    whole = {f"whole-{n:03d}": raw for n, raw in enumerate(target.seeds(scratch))}
    shutil.rmtree(scratch)
    if not corpus.exists():
        corpus.mkdir()
        for file, content in {**whole, **kept(name)}.items():
            (corpus / file).write_bytes(content)
    log, counted = place / "faults.jsonl", place / "count"
    count = int(counted.read_text()) if counted.exists() else 0

    def one_input(content: bytes) -> None:
        nonlocal count
        count += 1
        (place / "last").write_bytes(content)
        counted.write_text(str(count))
        fault = fault_of(target.read, content, scratch)
        shutil.rmtree(scratch)
        if fault:
            with log.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({"fault": fault, "input": content.hex()}) + "\n")

    def damaged(content: bytes, max_size: int, number: int) -> bytes:
        rng = random.Random(number)
        if rng.random() < 0.4:
            return bytes(atheris.Mutate(content, max_size))
        changed: bytes = target.damage(content, rng)
        return changed[:max_size]

    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MAX_ADDRESSES, resource.RLIM_INFINITY))
    options = (f"-runs={num_inputs}", f"-seed={seed}", f"-max_len={MAX_INPUT_BYTES}")
    limits = (f"-timeout={HARD_LIMIT_S}", "-rss_limit_mb=0", "-len_control=0", "-detect_leaks=0")
    quiet = ("-verbosity=0", f"-artifact_prefix={place}/")
    atheris.Setup(
        [sys.argv[0], *options, *limits, *quiet, str(corpus)],
        one_input,
        custom_mutator=damaged,
    )
    atheris.Fuzz()


def fuzz(name: str, num_inputs: int, seed: int, place: Path) -> tuple[int, float, dict[str, bytes]]:
    """Fuzz one target, again after each input that ends its process.

    Returns:
        Inputs, CPU seconds and, by what is wrong, the smallest input of each fault.
    """
    faults: dict[str, bytes] = {}
    counted, begun = place / "count", _children_s()
    for attempt in range(20):
        left = num_inputs - (int(counted.read_text()) if counted.exists() else 0)
        if left <= 0:
            break
        words = ("--child", name, str(left), str(seed + attempt), str(place))
        command = [sys.executable, "-m", "tests.benchmarks.damaged_inputs", *words]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if done.returncode:
            last = (place / "last").read_bytes() if (place / "last").exists() else b""
            said = " ".join(done.stderr.split())[-300:]
            faults[f"ends the process ({done.returncode}): {said}"] = last
    log = place / "faults.jsonl"
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else ():
        found = json.loads(line)
        kind, content = _kind(found["fault"]), bytes.fromhex(found["input"])
        if len(content) <= len(faults.get(kind, content)):
            faults[kind] = content
    return int(counted.read_text()), _children_s() - begun, faults


def _kind(fault: str) -> str:
    """What is wrong without the words of one input: the place and the type."""
    return ":".join(fault.split(":")[:3])


def _children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def smallest(place: Path) -> Iterator[bytes]:
    """Yield the smallest inputs that reach what all of them reach, as long as there is room."""
    import zlib

    left = CORPUS_BYTES
    found = sorted((place / "corpus").iterdir(), key=lambda path: path.stat().st_size)
    for path in found[:CORPUS_INPUTS]:
        content = path.read_bytes()
        left -= len(zlib.compress(content, 9)) + 120  # what an entry of an archive takes
        if left < 0:
            return
        yield content


def main() -> None:
    """Fuzz the targets that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*", help="[all]")
    parser.add_argument("--inputs", type=int, default=0, help="of each target [its share]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--found", type=Path, default=Path("damaged-inputs"))
    parser.add_argument("--keep", action="store_true", help="add to the corpus of the tests")
    options = parser.parse_args()
    from tests.damaged import corpus
    from tests.damaged.every import SHARES

    rows: list[tuple[Any, ...]] = []
    for name in options.targets or SHARES:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            number = options.inputs or SHARES[name]
            num_inputs, seconds, faults = fuzz(name, number, options.seed, place)
            if options.keep:
                known = corpus.kept(name).values()
                corpus.keep(name, {*known, *faults.values(), *smallest(place)})
        rows.append((name, num_inputs, seconds, len(faults)))
        print(f"{name:<14} {num_inputs:>7,} inputs {seconds:>7.0f} CPU s {len(faults):>3} faults")
        for number, (fault, content) in enumerate(faults.items()):
            options.found.mkdir(exist_ok=True)
            (options.found / f"{name}-{number}").write_bytes(content)
            print(f"    {name}-{number}: {fault}")
        sys.stdout.flush()
    totals = (sum(row[1] for row in rows), sum(row[2] for row in rows), sum(row[3] for row in rows))
    print("{:<14} {:>7,} inputs {:>7.0f} CPU s {:>3} faults".format("all", *totals))
    sys.exit(bool(totals[2]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        os.environ["HF_HUB_OFFLINE"] = "1"
        child(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
    else:
        main()
