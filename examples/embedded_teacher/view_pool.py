"""Write the views that the start weights learn from, and the tower's embedding of each, once.

The views cost as much as a training step, and so does the tower: a pool that is passed over several
times, mirrored at random, trains a small student at twice the speed. Both parts go on where they
stopped.

Shape suffixes: N views, P side in pixels, D embedding width.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from knowledge import EMBED_DIM
from torch.utils.data import DataLoader
from train_image_tower import normalised, packed_tower
from training_batches import Batches

from dfkd_edge.machine.process import keep_freed_memory
from dfkd_edge.networks.mixed_precision import mixed_precision

SIDE_PX = 112
BATCH = 128
FIRST_STEP = 10**5
"""Views are drawn as if this step were the first: no step of the tower's training saw them."""


def open_array(path: Path, shape: tuple[int, ...], kind: type) -> tuple[np.memmap, int]:
    """Open or make an array; returns it and the number of batches that are done."""
    progress = path.with_suffix(".done")
    if not path.exists():
        progress.unlink(missing_ok=True)
        np.lib.format.open_memmap(path, "w+", kind, shape).flush()
    done = int(progress.read_text("utf-8")) if progress.exists() else 0
    return np.lib.format.open_memmap(path, "r+"), done


def note_progress(path: Path, array: np.memmap, done: int) -> None:
    """Flush the array and write how many batches are done."""
    array.flush()
    path.with_suffix(".done").write_text(str(done), encoding="utf-8")


def write_views(work: Path, num_batches: int) -> None:
    """Write views.npy, uint8 [N, P, P, 3]."""
    path = work / "views.npy"
    views, done = open_array(path, (num_batches * BATCH, SIDE_PX, SIDE_PX, 3), np.uint8)
    steps = range(done, num_batches)
    batches = DataLoader(
        Batches(work, steps, BATCH, {0: SIDE_PX}, FIRST_STEP), batch_size=None, num_workers=1
    )
    clock = time.time()
    for step, batch in zip(steps, batches, strict=True):
        pixels = (batch["image"] * 255).round().byte().permute(0, 2, 3, 1)
        views[step * BATCH : (step + 1) * BATCH] = pixels.numpy()
        if step % 50 == 49 or step + 1 == num_batches:
            note_progress(path, views, step + 1)
            print(f"{step + 1} {(step + 1 - done) / (time.time() - clock):.2f}/s", flush=True)


@torch.inference_mode()
def embed_views(work: Path, num_batches: int) -> None:
    """Write view_embeddings.npy, float16 [N, D], unit rows, of the first views."""
    views = np.load(work / "views.npy", mmap_mode="r")
    path = work / "view_embeddings.npy"
    embeddings, done = open_array(path, (num_batches * BATCH, EMBED_DIM), np.float16)
    tower, _ = packed_tower(work / "image_tower_final.safetensors")
    tower = tower.eval().to(memory_format=torch.channels_last)
    clock = time.time()
    for step in range(done, num_batches):
        rows = slice(step * BATCH, (step + 1) * BATCH)
        image = torch.from_numpy(views[rows].copy()).permute(0, 3, 1, 2).float() / 255
        with mixed_precision("cpu"):
            embedding_ND = tower(normalised(image))
        embeddings[rows] = F.normalize(embedding_ND.float(), dim=1).numpy()
        if step % 50 == 49 or step + 1 == num_batches:
            note_progress(path, embeddings, step + 1)
            print(f"{step + 1} {(step + 1 - done) / (time.time() - clock):.2f}/s", flush=True)


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("views", "embeddings"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--batches", type=int, default=1024)
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(2)
    if args.part == "views":
        write_views(args.work, args.batches)
    else:
        embed_views(args.work, args.batches)


if __name__ == "__main__":
    main()
