"""The network of amortized synthesis: (prompt embedding, noise) -> latent, in one pass.

An MLP-Mixer (Tolstikhin et al., NeurIPS 2021) over the cells of the latent, as in feed-forward
VQGAN-CLIP (Cherti, mehdidc/feed_forward_vqgan_clip).

Shape suffixes: N images, D embedding width, T = h w latent cells, W network width, L latent
channels, Z noise channels.
"""

from functools import partial

import torch
import torch.nn.functional as F
from timm.models.mlp_mixer import MixerBlock
from torch import Tensor, nn

from dfkd_edge.synthesis.decoder import LatentDecoder

WIDTH, DEPTH, NUM_NOISE = 256, 6, 8
STATISTICS_OF = 64  # Start latents whose mean and deviation scale the output


class LatentNetwork(nn.Module):
    """Maps a prompt embedding and noise to a latent of a decoder."""

    def __init__(self, embed_dim: int, decoder: LatentDecoder, generator: torch.Generator) -> None:
        """Draw every weight from the generator."""
        super().__init__()
        self.latent_shape = decoder.latent_shape
        num_channels, rows, columns = self.latent_shape
        self.num_cells = rows * columns
        self.condition = nn.Linear(embed_dim, WIDTH)
        self.noise = nn.Linear(NUM_NOISE, WIDTH)
        position_TW = torch.randn((self.num_cells, WIDTH), generator=generator)
        self.position_TW = nn.Parameter(position_TW)
        block = partial(MixerBlock, WIDTH, self.num_cells, (0.5, 2.0), norm_layer=nn.LayerNorm)
        self.blocks = nn.Sequential(*(block() for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(WIDTH)
        self.output = nn.Linear(WIDTH, num_channels)
        for module in self.modules():  # torch's own initialisation takes no generator
            if isinstance(module, nn.Linear):
                std = module.in_features**-0.5
                nn.init.trunc_normal_(module.weight, std=std, generator=generator)
                nn.init.zeros_(module.bias)
        start = decoder.start(STATISTICS_OF, rows, generator).cpu()
        self.register_buffer("mean_L", start.mean((0, 2, 3)))
        self.register_buffer("spread_L", start.std((0, 2, 3)))

    def draw_noise(self, num: int, generator: torch.Generator) -> Tensor:
        """Draw the noise of `num` images, [N, T, Z]; cells differ, so that a prompt has many."""
        shape = (num, self.num_cells, NUM_NOISE)
        return torch.randn(shape, generator=generator, device=generator.device)

    def forward(self, condition_ND: Tensor, noise_NTZ: Tensor) -> Tensor:
        """Return latents [N, L, h, w] of unit prompts."""
        condition_ND = F.normalize(condition_ND, dim=1) * condition_ND.shape[1] ** 0.5
        x_NTW = self.condition(condition_ND)[:, None] + self.noise(noise_NTZ) + self.position_TW
        cell_NTL: Tensor = self.output(self.norm(self.blocks(x_NTW)))
        latent_NTL: Tensor = self.get_buffer("mean_L") + self.get_buffer("spread_L") * cell_NTL
        latent_NLhw: Tensor = latent_NTL.transpose(1, 2).unflatten(2, self.latent_shape[1:])
        return latent_NLhw
