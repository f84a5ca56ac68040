"""The pictures that the embedded decoder is trained on.

Shape suffixes: N pictures.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from training_batches import NameTargets, Pictures, as_rgba, load_pictures

from dfkd_edge.synthesis.retrieval import on_background

SIDE_PX = 96


class PictureSource:
    """Photos and icons at SIDE_PX, and the names that they stand for."""

    def __init__(self, work: Path) -> None:
        """Open both sets."""
        targets = NameTargets(work)
        self.photos = load_pictures(work, "photos", targets)
        self.icons = load_pictures(work, "icons", targets)

    def pixels(
        self,
        pictures: Pictures,
        rows: np.ndarray,
        generator: torch.Generator,
    ) -> Tensor:
        """Return RGB images [N, 3, SIDE_PX, SIDE_PX] in [0, 1]; icons get a random background."""
        stored = np.stack([pictures.pixels[r] for r in rows])
        if stored.shape[-1] == 4:
            image = on_background(as_rgba(stored), generator)
        else:
            image = torch.from_numpy(stored).permute(0, 3, 1, 2).float() / 255
        image = F.interpolate(image, size=(SIDE_PX, SIDE_PX), mode="area")
        mirrored = torch.rand((len(rows), 1, 1, 1), generator=generator) < 0.5
        return torch.where(mirrored, image.flip(3), image)

    def draw(self, step: int, batch: int) -> Tensor:
        """Half photos, half icons."""
        rng = np.random.default_rng((11, step))
        generator = torch.Generator().manual_seed(step)
        parts = []
        for of in (self.photos, self.icons):
            rows = rng.choice(len(of.draw_weight), batch // 2, p=of.draw_weight)
            parts.append(self.pixels(of, rows, generator))
        return torch.cat(parts)
