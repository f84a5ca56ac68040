"""Distil the default student's start weights from the embedded teacher, without any class list.

The student inherits the blocks of the tower that it keeps, and learns from the pool of views: the
tower's embedding of each and its softened distribution over the bank of names. Resumes from its
checkpoint; each batch depends on the step alone.

Shape suffixes: N views, D embedding width, V names in the bank.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from evaluate import Benchmark
from knowledge import EMBED_DIM
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from train_autoencoder import checkpoint, resume, set_rate
from train_image_tower import CLIP_MEAN, CLIP_STD, normalised, packed_tower

from dfkd_edge.config.settings import MINI
from dfkd_edge.distillation.step import feature_distances, soft_target_losses
from dfkd_edge.machine.process import keep_freed_memory
from dfkd_edge.networks.mixed_precision import mixed_precision
from dfkd_edge.networks.students import INPUT_MEAN, INPUT_STD, STUDENTS, Student

BANK_SCALE = 20.0
"""Sharpness of the distribution over the bank; the teacher's own is 32."""


class AsTower(nn.Module):
    """Feeds the evaluation's CLIP-normalised images to the student."""

    def __init__(self, student: Student) -> None:
        """Wrap a student."""
        super().__init__()
        self.student = student

    def forward(self, normal_NCHW: Tensor) -> Tensor:
        """Undo CLIP's normalisation and embed."""
        zero = normalised(torch.zeros(1, 3, 1, 1))
        one = normalised(torch.ones(1, 3, 1, 1))
        return self.student.embed_images((normal_NCHW - zero) / (one - zero))


@torch.no_grad()
def inherit(student: Student, tower: nn.Module) -> int:
    """Copy every trunk tensor of equal name and shape; refold the stem to the student's scaling.

    Returns:
        The number of parameters that were inherited.
    """
    source = {k: v.clone() for k, v in tower.trunk.state_dict().items()}
    scale = torch.tensor(INPUT_STD) / torch.tensor(CLIP_STD)
    shift = (torch.tensor(CLIP_MEAN) - torch.tensor(INPUT_MEAN)) / torch.tensor(CLIP_STD)
    stem = source["conv_stem.weight"]
    source["bn1.running_mean"] += (stem * shift[None, :, None, None]).sum((1, 2, 3))
    source["conv_stem.weight"] = stem * scale[None, :, None, None]
    own = student.backbone.state_dict()
    kept = {k: v for k, v in source.items() if k in own and own[k].shape == v.shape}
    student.backbone.load_state_dict(kept, strict=False)
    return sum(v.numel() for v in kept.values())


class Views:
    """The pool of views in memory-mapped files."""

    def __init__(self, work: Path) -> None:
        """Open the pool."""
        self.pixels = np.load(work / "views.npy", mmap_mode="r")
        self.embeddings = np.load(work / "view_embeddings.npy")

    def draw(self, step: int, batch: int, side_px: int) -> tuple[Tensor, Tensor]:
        """Return images [N, 3, P, P] in [0, 1], half of them mirrored, and unit embeddings."""
        num_batches = len(self.embeddings) // batch
        order = np.random.default_rng((5, step // num_batches)).permutation(len(self.embeddings))
        rows = np.sort(order[step % num_batches * batch :][:batch])
        image = torch.from_numpy(self.pixels[rows]).permute(0, 3, 1, 2).float() / 255
        mirrored = torch.from_numpy(np.random.default_rng((6, step)).random(batch) < 0.5)
        image = torch.where(mirrored[:, None, None, None], image.flip(3), image)
        if side_px != image.shape[-1]:
            image = F.interpolate(image, size=(side_px, side_px), mode="area")
        return image, F.normalize(torch.from_numpy(self.embeddings[rows]).float(), dim=1)


def main() -> None:
    """Train; write student_start_STEPS.safetensors (backbone and projection, averaged weights)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--pacs", type=Path, default=None, help="PACS, for evaluation only")
    parser.add_argument("--steps", type=int, default=4300)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--lr", type=float, default=2e-3)
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    entry = STUDENTS[MINI]
    student = Student(entry.timm_name, entry.image_size_px, torch.zeros(2, EMBED_DIM), 1.0)
    tower, _ = packed_tower(args.work / "image_tower_final.safetensors")
    print(f"inherited {inherit(student, tower) / 1e6:.2f} M parameters", flush=True)
    student = student.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(student.parameters(), lr=args.lr, weight_decay=0.02)
    path = args.work / "student_start_checkpoint.safetensors"
    averages = args.work / "student_start.safetensors"
    start = resume(path, student, optimiser)
    average = (
        load_file(averages) if start else {k: v.clone() for k, v in student.state_dict().items()}
    )
    average.pop("head_KD", None)
    views, bank_VD = Views(args.work), torch.from_numpy(np.load(args.work / "bank.npy"))
    clock = time.time()
    for step in range(start, args.steps):
        set_rate(optimiser, args.lr, step, args.steps)
        image, teacher_ND = views.draw(step, args.batch, student.image_size_px)
        with mixed_precision("cpu"):
            student_ND = student.embed_images(image)
        feature = feature_distances(student_ND, teacher_ND).mean()
        soft = soft_target_losses(
            BANK_SCALE * student_ND @ bank_VD.T, BANK_SCALE * teacher_ND @ bank_VD.T, 1.0
        ).mean()
        loss = 4 * feature + soft
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimiser.step()
        decay = min(0.998, (step + 1) / (step + 20))
        for key, value in student.state_dict().items():
            if key in average and value.dtype.is_floating_point:
                average[key].lerp_(value, 1 - decay)
        if step % 100 == 99:
            pace = (step + 1 - start) / (time.time() - clock)
            print(
                f"{step + 1} feature {feature:.4f} soft {soft:.4f} {pace:.2f} steps/s", flush=True
            )
        if step % 250 == 249 or step + 1 == args.steps:
            save_file({k: v.contiguous() for k, v in average.items()}, averages)
            checkpoint(path, step + 1, student, optimiser)
    save_file(average, args.work / f"student_start_{args.steps}.safetensors")
    student.load_state_dict(average, strict=False)
    student.eval()
    print(Benchmark(args.work, args.pacs).zero_shot(AsTower(student), 128), flush=True)


if __name__ == "__main__":
    main()
