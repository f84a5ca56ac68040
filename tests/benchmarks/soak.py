"""A soak: runs of random small settings, one after another, and what they leave behind.

python tests/benchmarks/soak.py [--runs 24] [--seed 0] [--folder DIR]

Each run is a `distill` and an `export` in processes of their own, with a class list, settings and a
target that are drawn from the seed. Prints of each its CPU seconds, peak memory and the bytes in
the caches, and fails where a command fails, where the later half of the runs takes more memory than
the earlier, where caches grow, or where a temporary file is left.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

WORDS = (
    *("dog", "house", "person", "great dane", "traffic light", "犬", "Straße", "guitar", "horse"),
    *("elephant", "giraffe", "coffee mug", "bicycle", "ripe tomato", "wind turbine", "sofa"),
)
TARGETS = (
    'base = "x86-cpu"\nmin_calibration_images = 8\n',
    'base = "x86-cpu"\nprecisions = ["fp32"]\n',
)
OF_TORCH = "torchinductor_"  # A folder that torch makes when it is imported, and keeps
MAX_GROWTH = 1.15  # Of the largest peak: the later half of the runs over the earlier (ours)
MAX_CACHE_MIB = 16.0  # What all runs after the first may add: drawings of names not seen before


@dataclass(frozen=True)
class Taken:
    """What one command took."""

    code: int
    cpu_s: float
    peak_mib: float
    said: str  # The end of its standard error


def run(words: list[str], folder: Path) -> Taken:
    """Run one command of the product to its end."""
    log = folder / "log"
    with log.open("wb") as stream:
        command = [sys.executable, "-m", "dfkd_edge", *words]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=stream)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    said = log.read_text(encoding="utf-8", errors="replace")[-300:]
    cpu_s = usage.ru_utime + usage.ru_stime
    return Taken(process.returncode, cpu_s, usage.ru_maxrss / 1024, said)


def drawn_settings(rng: random.Random, folder: Path) -> tuple[list[str], list[str]]:
    """Draw a class list, settings and a target; returns the words of `distill` and of `export`."""
    names = rng.sample(WORDS, rng.randint(2, 6))
    (folder / "classes.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    (folder / "board.toml").write_text(rng.choice(TARGETS), encoding="utf-8")
    settings = {
        "prompts.num_styles": rng.randint(2, 4),
        "prompts.num_iterations": rng.randint(1, 3),
        "synthesis.num_images": 32,
        "synthesis.num_sampling_steps": rng.randint(1, 2),
        "synthesis.num_refinement_steps": rng.randint(0, 1),
        "distillation.image_size_px": rng.choice((64, 96)),
        "distillation.num_steps": rng.randint(2, 6),
        "distillation.batch_size": rng.choice((4, 8)),
    }
    method = rng.choice(("base", "mix", "random", "contrastive"))
    distill = ["distill", "--classes", "classes.txt", "--prompts", method, "--quiet"]
    distill += ["--student-init", rng.choice(("pretrained", "random"))]
    distill += ["--seed", str(rng.randint(0, 9))]
    for key, value in settings.items():
        distill += ["--set", f"{key}={value}"]
    flags = ["--target", "board.toml", "--calib-size", "8", "--max-drop", "1", "--quiet"]
    return distill, ["export", *flags]


def size_mib(folder: Path) -> float:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20


def left_over(work: Path, temporary: Path) -> list[str]:
    """Name temporary files and folders that nobody needs any more."""
    found = [path for path in work.rglob(".*") if path.name.endswith(".tmp")]
    ours = (path for path in temporary.iterdir() if not path.name.startswith(OF_TORCH))
    return [str(path) for path in (*found, *ours)]


def faults_of(peaks_mib: list[float], caches_mib: list[float]) -> list[str]:
    """Compare the later half of the runs with the earlier, and the caches with the first run's."""
    faults, half = [], len(peaks_mib) // 2
    if half and max(peaks_mib[half:]) > MAX_GROWTH * max(peaks_mib[:half]):
        faults.append(f"memory grows: {max(peaks_mib[:half]):.0f} to {max(peaks_mib[half:]):.0f}")
    if caches_mib[-1] - caches_mib[0] > MAX_CACHE_MIB:
        faults.append(f"caches grow: {caches_mib[0]:.1f} to {caches_mib[-1]:.1f} MiB")
    return faults


def main() -> None:
    """Run them all, print a row each, and judge."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where they run [a temporary one]")
    options = parser.parse_args()
    rng, begun = random.Random(options.seed), time.monotonic()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        work, caches, temporary = (Path(name) / part for part in ("work", "cache", "tmp"))
        for folder in (work, caches, temporary):
            folder.mkdir()
        os.environ |= {"XDG_CACHE_HOME": str(caches), "TMPDIR": str(temporary)}
        peaks_mib, caches_mib, faults = list[float](), list[float](), list[str]()
        for number in range(options.runs):
            distill, export = drawn_settings(rng, work)
            place = f"runs/{number:02d}"
            taken = [run([*distill, "--output", place], work)]
            taken += [run([export[0], place, *export[1:]], work)] if not taken[0].code else []
            peaks_mib.append(max(each.peak_mib for each in taken))
            caches_mib.append(size_mib(caches))
            cpu_s = sum(each.cpu_s for each in taken)
            row = {"run": number, "codes": [each.code for each in taken], "cpu_s": round(cpu_s, 1)}
            row |= {"peak_mib": round(peaks_mib[-1]), "caches_mib": round(caches_mib[-1], 2)}
            print(json.dumps(row), flush=True)
            faults += [f"run {number}: {each.said}" for each in taken if each.code]
            faults += [f"run {number} leaves {path}" for path in left_over(work, temporary)]
        faults += faults_of(peaks_mib, caches_mib)
    print(f"{options.runs} runs in {time.monotonic() - begun:.0f} s, {len(faults)} faults")
    print("\n".join(faults))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
