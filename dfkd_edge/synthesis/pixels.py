"""A decoder without weights: an image is the sum of tensors of many resolutions.

Direct ascent synthesis (Fort and Whitaker, 2025, arXiv 2502.07753): moved at one rate, coarse
tensors change whole areas before fine ones find the noise that a classifier takes for a class. Any
teacher, any side, nothing to fetch, nobody's terms.

Shape suffixes: N images, L = all numbers of an image, C = 3 channels, S side of a level, H rows,
W columns.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_edge.networks.draws import drawn
from dfkd_edge.synthesis.decoder import LATENT_LIMIT, LatentShape

CHANNELS = 3
START = 0.5  # Deviation of the start, in that of the latents: more hides what is drawn (ours)
FINE = (0.7, 0.3)
"""Weights of the two finest levels, where photographs have little and teachers read much (ours)."""
COLOURS = ((0.97, 0.34, 0.07), (1.01, 0.0, -0.19), (1.01, -0.34, 0.11))
"""RGB of the channels: brightness, blue to red, green to purple, by what photographs have of each
(Olah, Mordvintsev and Schubert, "Feature Visualization", Distill 2017)."""


def sides_of_levels(image_size_px: int) -> list[int]:
    """Sides of the tensors of an image, each half of the next: 1, 2, 3, 6, 12, 24, 48, 96."""
    sides = [image_size_px]
    while sides[0] > 1:
        sides.insert(0, -(-sides[0] // 2))
    return sides


class PixelDecoder:
    """Sums tensors of many resolutions; a latent is all of them as one cell [N, L, 1, 1]."""

    spread = 0.6  # In logits of pixels: so long are 10 steps of the usual rate (ours)

    def __init__(self, image_size_px: int, device: str = "cpu") -> None:
        """Make images of any side."""
        self._colours_CC = torch.tensor(COLOURS, device=device)  # sent once: no step waits for it
        self.image_size_px, self._sides = image_size_px, sides_of_levels(image_size_px)
        self._lengths = [CHANNELS * side**2 for side in self._sides]
        self._weights = (*(1.0 for _ in self._sides[len(FINE) :]), *FINE)
        self.latent_shape: LatentShape = (sum(self._lengths), 1, 1)

    def start(self, num: int, side: int, generator: torch.Generator) -> Tensor:
        """Draw noise of every resolution: starts differ in colour and layout."""
        noise_NL11 = drawn(torch.randn, (num, *self.latent_shape), generator)
        return START * self.spread * noise_NL11

    def clamp(self, latent_NL11: Tensor) -> Tensor:
        """Keep one level from hiding the others."""
        limit = LATENT_LIMIT * self.spread
        return latent_NL11.clamp(-limit, limit)

    def descend(self, latent_NL11: Tensor, gradient_NL11: Tensor, rate: float) -> Tensor:
        """Step against the gradient, by `rate` deviations in the root mean square of each level."""
        steps = []
        for level_NL in gradient_NL11.flatten(1).split(self._lengths, 1):
            size_N1 = level_NL.square().mean(1, keepdim=True).sqrt().clamp(min=1e-12)
            steps.append(level_NL / size_N1)
        step_NL11 = torch.cat(steps, 1).view_as(latent_NL11)
        return self.clamp(latent_NL11 - rate * self.spread * step_NL11)

    def decode(self, latent_NL11: Tensor) -> Tensor:
        """Sum the levels, each enlarged onto the next, to RGB images [N, 3, H, W] in [0, 1]."""
        levels = latent_NL11.flatten(1).split(self._lengths, 1)
        sum_NCSS = latent_NL11.new_zeros(())
        for side, weight, level_NL in zip(self._sides, self._weights, levels, strict=True):
            if side > 1:
                sum_NCSS = F.interpolate(sum_NCSS, size=side, mode="bilinear")
            sum_NCSS = sum_NCSS + weight * level_NL.unflatten(1, (CHANNELS, side, side))
        return F.sigmoid(torch.einsum("rc,nchw->nrhw", self._colours_CC, sum_NCSS))
