"""Peak memory of `distill` with many surrogate images over that with few.

    python tests/benchmarks/image_count_memory.py --images 2000 20000 200000

The shards hold random pixels, written as synthesis writes them and under the key of the run, so
`distill` finds them finished: it selects, summarises, trains a few steps and evaluates what is held
out. A quarter of an hour and 3 GB of disk for 200,000 images of 64 px. Each run is a process of its
own: a process never gives its peak back.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from measuring import measured
from numpy.typing import NDArray

from dfkd_edge.config.file import settings_of
from dfkd_edge.console import ConsoleReporter, make_console
from dfkd_edge.pipeline import make_prompts, open_teacher
from dfkd_edge.preflight import DistillRequest, plan_distill
from dfkd_edge.runs.context import StageContext
from dfkd_edge.runs.run_dir import open_run
from dfkd_edge.runs.surrogates import write_shard
from dfkd_edge.synthesis.setup import SynthesisSetup
from dfkd_edge.synthesis.synthesize import synthesis_setup

CLASSES = ("dog", "house", "person", "guitar", "horse")
ALLOWED_MIB = 500
STEPS = 3


def candidates(setup: SynthesisSetup, number: int) -> dict[str, NDArray[np.generic]]:
    """Draw the candidates of a shard; the teacher has recognised nine of ten."""
    random = np.random.default_rng(number)
    size, side_px = setup.size_of_shard(number), setup.stored_side_px
    position = number * setup.shard_size + np.arange(size)
    embedding_ND = random.normal(size=(size, setup.teacher.embed_dim)).astype(np.float32)
    return {
        "images": random.integers(0, 256, (size, side_px, side_px, 3), np.uint8),
        "class_index": position % len(CLASSES),
        "style_index": np.zeros(size, np.int64),
        "drawing_index": np.full(size, -1),
        "embeddings": embedding_ND / np.linalg.norm(embedding_ND, axis=1, keepdims=True),
        "probability": random.random(size, np.float32),
        "is_recognised": random.random(size) < 0.9,
    }


def write_run(folder: Path, num_images: int, side_px: int) -> list[str]:
    """Write prompts and shards of a run; returns the command that goes on with it."""
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
    settings = [
        'synthesis.method="per-image"',  # its shards are the smallest, and so the most
        'prompts.method="base"',
        f"synthesis.image_size_px={side_px}",
        f"synthesis.num_images={num_images}",
    ]
    flags = {"classes": str(folder / "classes.txt"), "steps": STEPS, "imgsz": 64}
    request = DistillRequest(settings=settings_of(settings, flags), output=folder / "run")
    plan = plan_distill(request)
    reporter = ConsoleReporter(make_console(quiet=True))
    teacher = open_teacher(plan.config, plan.class_names, reporter)
    with open_run(plan.output, plan.key, resume=True, exist_ok=False) as run_dir:
        context = StageContext(run_dir, reporter, plan.config.seed, plan.config.device)
        prompts = make_prompts(plan.config, teacher, context)
        setup = synthesis_setup(prompts, teacher, plan.config.synthesis, context)
        for number in range(setup.num_shards):
            write_shard(setup.folder, number, setup.key, candidates(setup, number))
    words = [f"--{name}={value}" for name, value in flags.items()]
    words += [word for setting in settings for word in ("--set", setting)]
    return [*words, "--output", str(plan.output)]


def main() -> None:
    """Compare the numbers of images."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[2_000, 20_000, 200_000])
    parser.add_argument("--side", type=int, default=64)
    args = parser.parse_args()
    peaks_mib = []
    for num_images in args.images:
        with tempfile.TemporaryDirectory() as folder:
            words = write_run(Path(folder), num_images, args.side)
            command = [sys.executable, "-m", "dfkd_edge", "distill", *words, "--json", "--quiet"]
            taken = measured(command)
        kept = json.loads(taken.text)["surrogates"]["num_images"]
        peaks_mib.append(taken.peak_gib * 1024)
        print(
            f"{num_images:7,d} images, {kept:,} kept: peak {peaks_mib[-1]:.0f} MiB, "
            f"{peaks_mib[-1] - peaks_mib[0]:+.0f}, {taken.cpu_seconds:.0f} s of CPU",
            flush=True,
        )
    print(f"allowed {ALLOWED_MIB} MiB above the first")


if __name__ == "__main__":
    main()
