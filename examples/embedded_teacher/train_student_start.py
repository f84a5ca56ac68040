"""Distil the default student's start weights from the embedded teacher, without any class list.

The student sees the tower's training pictures in the tower's views and matches its embeddings and
its softened distribution over the bank of names. Resumes from its checkpoint.

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
from open_clip.timm_model import TimmModel
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader
from train_decoder import checkpoint, resume, set_rate
from train_image_tower import normalised
from training_batches import Batches

from dfkd_edge.distillation.losses import feature_distance, soft_target_loss
from dfkd_edge.mixed_precision import mixed_precision
from dfkd_edge.students import MINI, STUDENTS, Student


class AsTower(nn.Module):
    """Feeds the evaluation's CLIP-normalised images to the student."""

    def __init__(self, student: Student) -> None:
        """Wrap a student."""
        super().__init__()
        self.student = student

    def forward(self, normal_NCHW: torch.Tensor) -> torch.Tensor:
        """Undo CLIP's normalisation and embed."""
        zero = normalised(torch.zeros(1, 3, 1, 1))
        one = normalised(torch.ones(1, 3, 1, 1))
        return self.student.embed((normal_NCHW - zero) / (one - zero))


def load_tower(path: Path) -> TimmModel:
    """Build the frozen image tower."""
    tower = TimmModel(
        "tf_efficientnet_lite1",
        EMBED_DIM,
        image_size=128,
        pool="avg",
        proj="linear",
        proj_bias=True,
        pretrained=False,
    )
    weights = load_file(path)
    weights.pop("log_scale")
    tower.load_state_dict(weights)
    return tower.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def main() -> None:
    """Train; write student_start.safetensors (backbone and projection, averaged weights)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--pacs", type=Path, default=None, help="PACS, for evaluation only")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--lr", type=float, default=3e-3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    tower = load_tower(args.work / "image_tower_final.safetensors")
    bank_VD = torch.from_numpy(np.load(args.work / "bank.npy"))
    entry = STUDENTS[MINI]
    student = Student(entry.timm_name, entry.image_size_px, torch.zeros(2, EMBED_DIM), 1.0)
    student = student.to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(student.parameters(), lr=args.lr, weight_decay=0.02)
    path = args.work / "student_start_checkpoint.safetensors"
    averages = args.work / "student_start.safetensors"
    start = resume(path, student, optimiser)
    average = (
        load_file(averages) if start else {k: v.clone() for k, v in student.state_dict().items()}
    )
    average.pop("head_KD", None)
    side_at = {0: 96, int(args.steps * 0.75): 128}
    steps = range(start, args.steps)
    batches = DataLoader(
        Batches(args.work, steps, args.batch, side_at),
        batch_size=None,
        num_workers=1,
        prefetch_factor=4,
    )
    clock = time.time()
    for step, batch in zip(steps, batches, strict=True):
        set_rate(optimiser, args.lr, step, args.steps)
        image = batch["image"]
        student.image_size_px = image.shape[-1]
        with mixed_precision("cpu"):
            with torch.no_grad():
                teacher_ND = F.normalize(tower(normalised(image)).float(), dim=1)
            student_ND = student.embed(image)
        feature = feature_distance(student_ND, teacher_ND)
        soft = soft_target_loss(20 * student_ND @ bank_VD.T, 20 * teacher_ND @ bank_VD.T, 1.0)
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
        if step % 500 == 499 or step + 1 == args.steps:
            save_file({k: v.contiguous() for k, v in average.items()}, averages)
            checkpoint(path, step + 1, student, optimiser)
    student.load_state_dict(average, strict=False)
    student.image_size_px = entry.image_size_px
    print(Benchmark(args.work, args.pacs).zero_shot(AsTower(student), 128), flush=True)


if __name__ == "__main__":
    main()
