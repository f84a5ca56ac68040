"""Train the text tower: give open_clip's small text transformer the sentence encoder's geometry.

Token embeddings start from the sentence embedding of each token's own text, so that a rare word
that is one token is known from the first step. Resumes from its checkpoint.

Shape suffixes: N texts, T tokens, D embedding width, W transformer width, V vocabulary.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from knowledge import project, sentence_embeddings
from open_clip.model import CLIP
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from train_image_tower import save_checkpoint

from dfkd_edge.networks.mixed_precision import mixed_precision

CONFIG = Path(__file__).parents[2] / "dfkd_edge" / "assets" / "teacher" / "dfkd-mini.json"


def encode(model: CLIP, token_NT: Tensor) -> Tensor:
    """Unit text embeddings [N, D] as encode_text gives them, without the padding's cost."""
    longest = int((token_NT != 0).sum(1).max())
    token_NT = token_NT[:, :longest]
    hidden_NTW = model.token_embedding(token_NT) + model.positional_embedding[:longest]
    mask_TT = model.attn_mask[:longest, :longest]
    hidden_NTW = model.ln_final(model.transformer(hidden_NTW, attn_mask=mask_TT))
    end_NW = hidden_NTW[torch.arange(len(token_NT)), token_NT.argmax(1)]
    return F.normalize((end_NW @ model.text_projection).float(), dim=1)


@torch.no_grad()
def start_tokens(model: CLIP, space: dict[str, np.ndarray]) -> None:
    """Set every token's embedding to its text's place in the space, cut to the width by PCA."""
    tokenizer = open_clip.tokenizer.SimpleTokenizer()
    texts = [
        tokenizer.decoder[i].replace("</w>", " ").strip() or "."
        for i in range(len(tokenizer.decoder))
    ]
    place_VD = torch.from_numpy(project(sentence_embeddings(texts), space)).float()
    width = model.token_embedding.weight.shape[1]
    model.token_embedding.weight.copy_(place_VD[:, :width] / place_VD[:, :width].std() * 0.05)


def main() -> None:
    """Train by regression onto the targets of knowledge.py; write text_tower.safetensors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lr", type=float, default=2e-3)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    open_clip.add_model_config(CONFIG)
    model = open_clip.create_model("dfkd-mini", load_weights=False)
    tokenizer = open_clip.get_tokenizer("dfkd-mini")
    texts = json.loads((args.work / "texts.json").read_text(encoding="utf-8"))
    target_ND = torch.from_numpy(np.load(args.work / "texts.npy"))
    token_NT = torch.cat([tokenizer(texts[i : i + 4096]) for i in range(0, len(texts), 4096)])
    num_held = 4000
    order = torch.randperm(len(texts), generator=torch.Generator().manual_seed(1))
    held, order = order[:num_held], order[num_held:]
    lengths = (token_NT[order] != 0).sum(1) + torch.rand(len(order))
    order = order[lengths.argsort()]  # neighbours are equally long: a batch carries no padding
    parts = [
        p for n, p in model.named_parameters() if not n.startswith("visual") and "logit" not in n
    ]
    optimiser = torch.optim.AdamW(parts, lr=args.lr, weight_decay=0.01, betas=(0.9, 0.98))
    path = args.work / "text_tower_checkpoint.safetensors"
    start = 0
    if path.exists():
        saved = load_file(path)
        start = int(saved["step"])
        model.load_state_dict({k[6:]: v for k, v in saved.items() if k.startswith("model/")}, False)
        for number, parameter in enumerate(parts):
            optimiser.state[parameter] = {
                k: saved[f"adam/{number}.{k}"] for k in ("step", "exp_avg", "exp_avg_sq")
            }
    else:
        start_tokens(model, dict(np.load(args.work / "space.npz")))
    clock = time.time()
    for step in range(start, args.steps):
        rate = args.lr * min(1, (step + 1) / 300)
        rate *= 0.5 * (1 + np.cos(np.pi * step / args.steps)) + 0.005
        for group in optimiser.param_groups:
            group["lr"] = rate
        generator = torch.Generator().manual_seed(step)
        first = int(torch.randint(len(order) - args.batch, (1,), generator=generator))
        rows = order[first : first + args.batch]
        with mixed_precision("cpu"):
            embedding_ND = encode(model, token_NT[rows])
        near_loss = (1 - (embedding_ND * target_ND[rows]).sum(1)).mean()
        logits_NN = 20 * embedding_ND @ target_ND[rows].T
        kin_NN = (20 * target_ND[rows] @ target_ND[rows].T).softmax(1)
        geometry_loss = F.kl_div(logits_NN.log_softmax(1), kin_NN, reduction="batchmean")
        loss = near_loss + 0.2 * geometry_loss
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parts, 1.0)
        optimiser.step()
        if step % 100 == 99:
            pace = (step + 1 - start) / (time.time() - clock)
            print(f"{step + 1} cos {1 - near_loss:.4f} {pace:.2f} steps/s", flush=True)
        if step % 1000 == 999 or step + 1 == args.steps:
            with torch.inference_mode():
                held_ND = torch.cat([encode(model, token_NT[r]) for r in held.split(500)])
            print(
                f"held-out texts: cos {(held_ND * target_ND[held]).sum(1).mean():.4f}", flush=True
            )
            own = {k: v for k, v in model.state_dict().items() if not k.startswith("visual")}
            adam = {
                f"{n}.{k}": optimiser.state[p][k]
                for n, p in enumerate(parts)
                for k in ("step", "exp_avg", "exp_avg_sq")
            }
            save_checkpoint(path, step + 1, model=own, adam=adam)
            save_file(own, args.work / "text_tower.safetensors")


if __name__ == "__main__":
    main()
