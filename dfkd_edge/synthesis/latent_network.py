"""The network of amortized synthesis, (prompt embedding, start latent) -> latent.

It moves the latents that per-image synthesis starts from, by what follows from the prompt alone and
by what an MLP-Mixer (Tolstikhin et al., NeurIPS 2021) makes of both, cell by cell, as in
feed-forward VQGAN-CLIP (Cherti, mehdidc/feed_forward_vqgan_clip). Starts differ, and so do the
pictures of one prompt; network_training.py trains it on nothing but the prompts.

Shape suffixes: N images, P prompts, D embedding width, T = h w latent cells, W network width,
L latent channels, h, w latent rows and columns.
"""

from functools import partial

import torch
import torch.nn.functional as F
from timm.models.mlp_mixer import MixerBlock
from torch import Tensor, nn

from dfkd_edge.networks.mixed_precision import mixed_precision
from dfkd_edge.synthesis.decoder import LatentDecoder

WIDTH, DEPTH = 128, 8  # Those that the reference trains
STATISTICS_OF = 64  # Start latents whose mean and deviation are the network's units


class LatentNetwork(nn.Module):
    """Maps a prompt embedding and a start latent to a latent of a decoder."""

    def __init__(
        self, target_PD: Tensor, decoder: LatentDecoder, generator: torch.Generator
    ) -> None:
        """Draw every weight from the generator; the prompts say what their mean is."""
        super().__init__()
        self.latent_shape, embed_dim = decoder.latent_shape, target_PD.shape[1]
        num_channels, rows, columns = self.latent_shape
        num_cells = rows * columns
        self.condition = nn.Linear(embed_dim, WIDTH)
        self.start = nn.Linear(num_channels, WIDTH)
        position_TW = torch.randn((num_cells, WIDTH), generator=generator)
        self.position_TW = nn.Parameter(position_TW / 2)
        block = partial(MixerBlock, WIDTH, num_cells, (0.5, 2.0), norm_layer=nn.LayerNorm)
        self.blocks = nn.Sequential(*(block() for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(WIDTH)
        self.output = nn.Linear(WIDTH, num_channels)
        self.of_prompt = nn.Linear(embed_dim, num_cells * num_channels)
        for module in self.modules():  # torch's own initialisation takes no generator
            if isinstance(module, nn.Linear):
                std = module.in_features**-0.5
                nn.init.trunc_normal_(module.weight, std=std, generator=generator)
                nn.init.zeros_(module.bias)
        for last in (self.output, self.of_prompt):  # the first pictures are those of the starts
            nn.init.zeros_(last.weight)
        start = decoder.start(STATISTICS_OF, rows, generator).cpu()
        self.register_buffer("mean_L", start.mean((0, 2, 3)))
        self.register_buffer("spread_L", start.std((0, 2, 3)))
        self.register_buffer("mean_D", target_PD.mean(0).cpu())

    def forward(self, prompt_ND: Tensor, start_NLhw: Tensor) -> Tensor:
        """Return latents [N, L, h, w] of unit prompts."""
        mean_L, spread_L, mean_D = map(self.get_buffer, ("mean_L", "spread_L", "mean_D"))
        # texts lie in a narrow cone: what tells them apart is their difference to its axis
        condition_ND = F.normalize(prompt_ND - mean_D, dim=1) * prompt_ND.shape[1] ** 0.5
        start_NTL = start_NLhw.flatten(2).transpose(1, 2)
        with mixed_precision(prompt_ND.device.type):
            of_start_NTW = self.start((start_NTL - mean_L) / spread_L)
            x_NTW = self.condition(condition_ND)[:, None] + of_start_NTW + self.position_TW
            cell_NTL = self.output(self.norm(self.blocks(x_NTW)))
            moved_NTL = cell_NTL + self.of_prompt(condition_ND).view_as(cell_NTL)
        latent_NTL: Tensor = start_NTL + spread_L * moved_NTL.float()
        latent_NLhw: Tensor = latent_NTL.transpose(1, 2).unflatten(2, self.latent_shape[1:])
        return latent_NLhw
