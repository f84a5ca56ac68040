"""Zero-shot accuracy of an image tower: PACS, one held-out icon style, categories without a name.

Names are embedded with the sentence encoder while the towers train, and with the shipped text
tower afterwards.

Shape suffixes: N pictures, K classes, D embedding width.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from knowledge import project, sentence_embeddings
from open_clip.timm_model import TimmModel
from pictures import NEW_CATEGORIES
from PIL import Image
from torch import Tensor

from dfkd_edge.networks.mixed_precision import mixed_precision

TextEncoder = Callable[[Sequence[str]], Tensor]
ICON_STYLE = "openmoji"


class Benchmark:
    """The evaluation pictures of the recipe, none of which is trained on."""

    def __init__(self, work: Path, pacs: Path | None, encode: TextEncoder | None = None) -> None:
        """Load every set once as uint8 at 128 px."""
        self.space = dict(np.load(work / "space.npz"))
        self.encode = encode or self._sentence_encoder
        labels = json.loads((work / "heldout_icons.json").read_text(encoding="utf-8"))
        rgba = np.load(work / "heldout_icons.npy", mmap_mode="r")
        trained = Counter(
            row["name"].lower() for row in json.loads((work / "icons.json").read_text("utf-8"))
        )
        rows = {
            row["name"].lower(): i
            for i, row in reversed(list(enumerate(labels)))
            if row["source"] == ICON_STYLE
        }
        common = [n for n, _ in trained.most_common() if n in rows and n not in NEW_CATEGORIES]
        rng = np.random.default_rng(0)
        fifty = sorted(rng.permutation(common[:300])[:50])
        self.sets: dict[str, tuple[list[str], Tensor, Tensor]] = {
            "icons50": self._icons(rgba, [(n, [rows[n]]) for n in fifty]),
            "new20": self._icons(
                rgba,
                [(c, [i for i, r in enumerate(labels) if r["name"] == c]) for c in NEW_CATEGORIES],
            ),
        }
        for domain in sorted(pacs.iterdir()) if pacs else []:
            self.sets[domain.name] = self._folder(domain)

    def _sentence_encoder(self, texts: Sequence[str]) -> Tensor:
        return torch.from_numpy(project(sentence_embeddings(list(texts)), self.space)).float()

    @staticmethod
    def _icons(
        rgba: np.ndarray, classes: list[tuple[str, list[int]]]
    ) -> tuple[list[str], Tensor, Tensor]:
        images, label = [], []
        for number, (_, rows) in enumerate(classes):
            for row in rows:
                picture = rgba[row].astype(np.float32)
                alpha = picture[..., 3:] / 255
                images.append((picture[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8))
                label.append(number)
        return [n for n, _ in classes], torch.from_numpy(np.stack(images)), torch.tensor(label)

    @staticmethod
    def _folder(domain: Path) -> tuple[list[str], Tensor, Tensor]:
        names = sorted(p.name for p in domain.iterdir())
        files = [(f, k) for k, n in enumerate(names) for f in sorted((domain / n).iterdir())]
        images = [np.asarray(Image.open(f).convert("RGB").resize((128, 128))) for f, _ in files]
        return names, torch.from_numpy(np.stack(images)), torch.tensor([k for _, k in files])

    @torch.inference_mode()
    def zero_shot(self, tower: TimmModel, side_px: int) -> dict[str, float]:
        """Top-1 of each set, as fractions."""
        tower.eval()
        mean = torch.tensor((0.48145466, 0.4578275, 0.40821073))[None, :, None, None]
        std = torch.tensor((0.26862954, 0.26130258, 0.27577711))[None, :, None, None]
        result = {}
        for key, (names, images, label) in self.sets.items():
            text_KD = self.encode(names)
            right = 0
            for start in range(0, len(images), 128):
                image = images[start : start + 128].permute(0, 3, 1, 2) / 255
                if side_px != image.shape[-1]:
                    image = F.interpolate(image, size=(side_px, side_px), mode="area")
                image = ((image - mean) / std).to(memory_format=torch.channels_last)
                with mixed_precision("cpu"):
                    embedding_ND = tower(image).float()
                guess = (embedding_ND @ text_KD.T).argmax(1)
                right += int((guess == label[start : start + 128]).sum())
            result[key] = round(right / len(images), 4)
        return result
