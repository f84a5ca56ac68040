"""Batches of named pictures and what the towers are taught to see in them.

Shape suffixes: N pictures, D embedding width, V names in the bank, P side in pixels.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from knowledge import COARSE_NAMES, imagenet_names
from pictures import names_new_category
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from dfkd_edge.networks.view_keys import view_keys
from dfkd_edge.networks.views import (
    channel_statistics,
    colour_jitter,
    geometric_view,
    plan_views,
    style_view,
)
from dfkd_edge.synthesis.retrieval import on_background

PERSON_WORDS = frozenset(
    [
        "man",
        "woman",
        "men",
        "women",
        "boy",
        "girl",
        "child",
        "baby",
        "adult",
        "person",
        "people",
        "prince",
        "princess",
        "nurse",
        "doctor",
        "teacher",
        "farmer",
        "cook",
        "student",
        "singer",
        "artist",
        "pilot",
        "astronaut",
        "firefighter",
        "officer",
        "guard",
        "detective",
        "ninja",
        "worker",
        "bride",
        "mage",
        "fairy",
        "vampire",
        "zombie",
        "elf",
        "mechanic",
        "scientist",
        "technologist",
        "judge",
        "grandma",
        "grandpa",
        "mother",
        "father",
        "superhero",
        "supervillain",
        "runner",
        "dancer",
        "golfer",
        "swimmer",
        "surfer",
        "cyclist",
        "genie",
        "merperson",
        "mermaid",
        "beard",
        "wizard",
        "angel",
        "king",
        "queen",
        "knight",
        "pirate",
        "cowboy",
    ]
)
EMOJI_SHARE = 0.7
"""Share of the icons that come from coloured emoji styles; the rest are one-colour symbols."""

SCARCE_NAMES = {"horse": 4.0, "deer": 4.0}
"""Names with few photos, all of them small, are drawn more often."""


@dataclass(frozen=True)
class Pictures:
    """Training pictures with their targets over the bank of names, sparse."""

    pixels: np.ndarray  # uint8 [N, P, P, 3 or 4]
    target_index: np.ndarray  # int64 [N, 24]
    target_weight: np.ndarray  # float32 [N, 24], rows sum to 1 or, for photos, to the name share
    draw_weight: np.ndarray  # float64 [N]


class NameTargets:
    """Turns a name into a sparse distribution over the bank: itself, its kin, its head noun."""

    def __init__(self, work: Path) -> None:
        """Read the bank and the sixteen nearest names of each name."""
        self.names: list[str] = json.loads((work / "bank.json").read_text(encoding="utf-8"))
        self.index = {name: row for row, name in enumerate(self.names)}
        bank_VD = torch.from_numpy(np.load(work / "bank.npy"))
        self.kin_weight, self.kin_index = (bank_VD @ bank_VD.T).div(0.06).topk(16, dim=1)
        self.kin_weight = self.kin_weight.softmax(1)

    def coarse(self, name: str) -> list[str]:
        """Everyday names of a compound name: its head noun, and 'person' for people."""
        words = re.split(r"[\s-]+", name)
        heads = ["person"] if PERSON_WORDS & set(words) else []
        stem = [w for w in words if w not in ("face", "head")]
        heads += [w for w in stem[-1:] if w != name and w in self.index]
        return heads[:1]

    def row(self, name: str, coarse_share: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
        """Return bank indices [32] and weights [32] (sum 1) of one name."""
        coarse = [self.index[c] for c in self.coarse(name)]
        parts = [(self.index[name], 1.0 - (coarse_share if coarse else 0.0))]
        parts += [(row, coarse_share) for row in coarse]
        index = np.concatenate([self.kin_index[row].numpy() for row, _ in parts])
        weight = np.concatenate([self.kin_weight[row].numpy() * w for row, w in parts])
        pad = 32 - len(index)
        return np.pad(index, (0, pad)), np.pad(weight, (0, pad)).astype(np.float32)


def load_pictures(work: Path, stem: str, targets: NameTargets) -> Pictures:
    """Open photos or icons; pictures whose name is not in the bank are never drawn."""
    labels = json.loads((work / f"{stem}.json").read_text(encoding="utf-8"))
    emoji = {"noto", "noto-v1", "twemoji", "fluent-emoji-flat", "fluent-emoji", "emojione"}
    emoji |= {"emojione-v1", "fxemoji", "flat-color-icons"}
    draw = np.zeros(len(labels))
    index, weight = np.zeros((len(labels), 32), np.int64), np.zeros((len(labels), 32), np.float32)
    for row, label in enumerate(labels):
        name = label["name"].lower()
        if name not in targets.index or names_new_category(name):
            continue
        index[row], weight[row] = targets.row(name)
        draw[row] = {"imagenet-sample-images": 4.0, "CIFAR-10": 0.5}.get(label["source"], 1.0)
        draw[row] *= SCARCE_NAMES.get(name, 1.0)
        if stem == "icons":
            draw[row] = 1.0 if label["source"] in emoji else 0.0
    if stem == "icons":
        others = np.array([label["source"] not in emoji for label in labels]) & (weight.sum(1) > 0)
        draw = EMOJI_SHARE * draw / draw.sum() + (1 - EMOJI_SHARE) * others / others.sum()
    return Pictures(np.load(work / f"{stem}.npy", mmap_mode="r"), index, weight, draw / draw.sum())


def as_rgba(pixels_NPPC: np.ndarray) -> Tensor:
    """Turn stored icons, uint8 [N, P, P, 4], into float [N, 4, P, P] in [0, 1]."""
    return torch.from_numpy(pixels_NPPC.astype(np.float32) / 255).permute(0, 3, 1, 2)


class Batches(IterableDataset[dict[str, Tensor]]):
    """Whole batches, each a function of (seed, step): pictures in views, sparse targets, rows."""

    def __init__(
        self, work: Path, steps: range, batch: int, side_at: dict[int, int], first: int = 0
    ) -> None:
        """Remember what to draw; the arrays are opened in the worker. `first` shifts the draws."""
        self.work, self.steps, self.batch, self.side_at = work, steps, batch, side_at
        self.first = first

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Yield one dictionary a step."""
        torch.set_num_threads(1)
        targets = NameTargets(self.work)
        photos = load_pictures(self.work, "photos", targets)
        icons = load_pictures(self.work, "icons", targets)
        worker = torch.utils.data.get_worker_info()
        first, stride = (worker.id, worker.num_workers) if worker else (0, 1)
        for step in self.steps[first::stride]:
            yield self.draw(step, photos, icons)

    def draw(self, step: int, photos: Pictures, icons: Pictures) -> dict[str, Tensor]:
        """Build the batch of one step: the first half photos, the second half icons."""
        drawn = self.first + step
        rng = np.random.default_rng((7, drawn))
        generator = torch.Generator().manual_seed(1_000_003 * drawn + 7)
        half = self.batch // 2
        rows_photo = rng.choice(len(photos.draw_weight), half, p=photos.draw_weight)
        rows_icon = rng.choice(len(icons.draw_weight), half, p=icons.draw_weight)
        photo = torch.from_numpy(np.stack([photos.pixels[r] for r in rows_photo]))
        photo = photo.permute(0, 3, 1, 2).float() / 255
        icon = on_background(as_rgba(np.stack([icons.pixels[r] for r in rows_icon])), generator)
        side = self.side_at[max(s for s in self.side_at if s <= step)]
        image = geometric_view(torch.cat((photo, icon)), side, generator, min_scale=0.45)
        probability = torch.cat((torch.full((half,), 0.6), torch.full((half,), 0.5)))
        key_N = view_keys(generator.initial_seed(), torch.arange(self.batch))
        plan = plan_views(key_N, probability, image.device)
        image = style_view(image, plan, channel_statistics(image))
        image = colour_jitter(image, generator, 0.3)
        return {
            "image": image,
            "index": torch.from_numpy(
                np.concatenate([photos.target_index[rows_photo], icons.target_index[rows_icon]])
            ),
            "weight": torch.from_numpy(
                np.concatenate([photos.target_weight[rows_photo], icons.target_weight[rows_icon]])
            ),
            "photo_row": torch.from_numpy(rows_photo),
        }


class PosteriorTargets:
    """Maps ImageNet posteriors of photos onto the bank: half exact names, half everyday names."""

    def __init__(self, work: Path, index: dict[str, int]) -> None:
        """Build the [1000, V] map and open the posteriors."""
        self.posteriors = np.load(work / "posteriors.npy", mmap_mode="r")
        self.to_bank = torch.zeros(1000, len(index))
        names = [name.lower() for name in imagenet_names()]
        for row, name in enumerate(names):
            if name in index:
                self.to_bank[row, index[name]] = 1.0
        for name, ranges in COARSE_NAMES.items():
            for low, high in ranges:
                self.to_bank[low : high + 1, :] *= 0.5
                self.to_bank[low : high + 1, index[name]] += 0.5
        self.to_bank /= self.to_bank.sum(1, keepdim=True).clamp(min=1e-6)

    def __call__(self, rows: Tensor) -> Tensor:
        """Return targets [N, V] of the given photos, rows summing to about 1."""
        posterior = torch.from_numpy(self.posteriors[rows.numpy()].astype(np.float32))
        return posterior @ self.to_bank


class BankTargets(nn.Module):
    """Full targets of a batch: distribution over the bank [N, V] and its mean embedding [N, D]."""

    def __init__(self, work: Path, posterior_share: float) -> None:
        """Open bank and posteriors."""
        super().__init__()
        targets = NameTargets(work)
        self.bank_VD = torch.from_numpy(np.load(work / "bank.npy"))
        self.posterior = PosteriorTargets(work, targets.index)
        self.share = posterior_share

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Mix names and posteriors; photos come first in the batch."""
        target = torch.zeros(len(batch["index"]), len(self.bank_VD))
        target.scatter_add_(1, batch["index"], batch["weight"])
        half = len(batch["photo_row"])
        mapped = self.posterior(batch["photo_row"])
        target[:half] = (1 - self.share) * target[:half] + self.share * mapped
        target /= target.sum(1, keepdim=True)
        return target, F.normalize(target @ self.bank_VD, dim=1)
