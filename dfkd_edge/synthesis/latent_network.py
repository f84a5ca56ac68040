"""The network of amortized synthesis, (prompt embedding, noise) -> latent, and its training.

An MLP-Mixer (Tolstikhin et al., NeurIPS 2021) over the cells of the latent, trained on nothing but
the prompts, as feed-forward VQGAN-CLIP is (Cherti, mehdidc/feed_forward_vqgan_clip). The loss: the
distance of random views of the decoded picture to the prompt, less the mean distance between
pictures of one prompt, plus the latent's square and total variation; and the class anchor (Wei et
al., ICLR 2025). A step depends on the seed, its number and what a checkpoint keeps, so that a
training that was stopped goes on bit for bit.

Shape suffixes: N = P M images, P prompts, M draws of each, V views, D embedding width, T = h w
latent cells, W network width, L latent channels, Z noise channels, C = 3 channels, H rows,
W columns.
"""

import time
from functools import partial

import filelock
import torch
import torch.nn.functional as F
from timm.models.mlp_mixer import MixerBlock
from torch import Tensor, nn

from dfkd_edge.runs.checkpoint import load_checkpoint, save_checkpoint
from dfkd_edge.seeding import stage_generator
from dfkd_edge.synthesis.decoder import LatentDecoder
from dfkd_edge.synthesis.guidance import augmented_views, guidance_loss, total_variation
from dfkd_edge.synthesis.setup import STAGE, SynthesisSetup

WIDTH, DEPTH, NUM_NOISE = 256, 6, 8
STATISTICS_OF = 64  # Start latents whose mean and deviation scale the output
DRAWS = 4  # Pictures of each prompt in a step: their mean distance needs pairs
CHECKPOINT_INTERVAL_S = 10.0
MEMORY_OF_DIFFICULTY = 0.9  # Weight of the past in the moving average of a prompt's difficulty


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


def mean_distance_of_draws(embedding_VPMD: Tensor) -> Tensor:
    """Mean of 1 - cosine over pairs of draws of one prompt, over prompts and views."""
    num = embedding_VPMD.shape[2]
    pairs_VP = embedding_VPMD.sum(2).square().sum(2) - num  # unit rows: the diagonal sums to num
    return (1 - pairs_VP / (num * (num - 1))).mean()


class NetworkTraining:
    """The state of one training: its network, and how hard each prompt has been."""

    def __init__(
        self, network: LatentNetwork, decoder: LatentDecoder, setup: SynthesisSetup
    ) -> None:
        self.network, self.decoder, self.setup = network, decoder, setup
        device = setup.teacher.device
        self.target_PD = torch.from_numpy(setup.prompts.embeddings).to(device)
        self.label_P = torch.from_numpy(setup.prompts.class_index).to(device)
        self.difficulty_P = torch.ones(len(self.target_PD), device=device)
        """1 - probability of the class, averaged over draws, views and visits; a checkpoint's.
        Prompts that were not seen yet are hardest."""

    def draw_prompts(self, step: int, generator: torch.Generator) -> Tensor:
        """Draw the prompts of a step in turn, and hard ones again for `replay_share` of the places.

        Each pass over all prompts has a random order that the seed and its number decide.
        """
        config, num = self.setup.config, len(self.target_PD)
        places = config.training_batch_size // DRAWS
        num_replayed = min(round(places * config.replay_share), places - 1)  # the turn goes on
        in_turn = places - num_replayed
        turn, begin = divmod(step * in_turn, num)
        orders: list[Tensor] = []
        while len(orders) * num < begin + in_turn:
            of_turn = stage_generator(self.setup.context.seed, STAGE, "order", turn + len(orders))
            orders.append(torch.randperm(num, generator=of_turn))
        drawn = torch.cat(orders)[begin : begin + in_turn]
        drawn = drawn.to(self.label_P.device, non_blocking=True)
        if not num_replayed:
            return drawn
        difficulty_P = self.difficulty_P.to(generator.device)
        hard = torch.multinomial(difficulty_P, num_replayed, replacement=True, generator=generator)
        return torch.cat((drawn, hard.to(drawn.device)))

    def loss(self, prompt_P: Tensor, generator: torch.Generator) -> Tensor:
        """Return the loss of DRAWS pictures of each prompt, and note how hard the prompts were."""
        config, teacher = self.setup.config, self.setup.teacher
        prompt_N = prompt_P.repeat_interleave(DRAWS)
        target_ND, label_N = self.target_PD[prompt_N], self.label_P[prompt_N]
        noise_NTZ = self.network.draw_noise(len(prompt_N), generator).to(target_ND)
        latent_NLhw = self.network(target_ND, noise_NTZ)
        # clamped for the decoder, as if it were not for the gradient, which would vanish outside
        inside = latent_NLhw + (self.decoder.clamp(latent_NLhw) - latent_NLhw).detach()
        image_NCHW = self.decoder.decode(inside)
        num_views = config.num_views
        view_NCHW = augmented_views(image_NCHW, num_views, teacher.image_size_px, generator)
        embedding_ND = teacher.embed_images(view_NCHW)
        self._note_difficulty(prompt_P, embedding_ND.detach(), label_N)
        loss = guidance_loss(
            embedding_ND, target_ND.repeat(num_views, 1), label_N.repeat(num_views), teacher
        )
        distance = mean_distance_of_draws(embedding_ND.view(num_views, len(prompt_P), DRAWS, -1))
        total: Tensor = (
            loss
            - config.diversity_weight * distance
            + config.latent_l2_weight * latent_NLhw.square().mean()
            + config.total_variation_weight * total_variation(image_NCHW)
        )
        return total

    def _note_difficulty(self, prompt_P: Tensor, embedding_ND: Tensor, label_N: Tensor) -> None:
        """Update the difficulty of prompts; the embeddings are of DRAWS pictures in every view."""
        probability = self.setup.teacher.logits(embedding_ND).softmax(1)
        asked = probability.gather(1, label_N.repeat(self.setup.config.num_views)[:, None])
        now_P = 1 - asked.view(-1, len(prompt_P), DRAWS).mean((0, 2))
        kept = MEMORY_OF_DIFFICULTY * self.difficulty_P[prompt_P]
        now_P = kept + (1 - MEMORY_OF_DIFFICULTY) * now_P
        self.difficulty_P[prompt_P] = now_P.clamp(min=1e-3)  # none is out of the draw for good


def trained_network(decoder: LatentDecoder, setup: SynthesisSetup) -> LatentNetwork:
    """Train the network, go on with its training, or read it when it is trained.

    Processes that share a run wait at a lock while the first one trains it.
    """
    generator = stage_generator(setup.context.seed, STAGE, "network")
    network = LatentNetwork(setup.teacher.embed_dim, decoder, generator)
    network.to(setup.teacher.device)
    training = NetworkTraining(network, decoder, setup)
    with filelock.FileLock(setup.folder / ".network.lock"):
        _train(training)
    return network.eval().requires_grad_(False)


def _train(training: NetworkTraining) -> None:
    setup, network = training.setup, training.network
    context, num_steps = setup.context, setup.config.num_training_steps
    path, state = setup.folder / "network.safetensors", {"difficulty": training.difficulty_P}
    adam = torch.optim.Adam(network.parameters(), lr=setup.config.training_rate)
    start = load_checkpoint(path, setup.key, network, adam, state)
    if start == num_steps:
        return
    with context.reporter.stage("training the synthesizer", num_steps, start) as progress:
        saved = time.monotonic()
        for step in range(start, num_steps):
            generator = stage_generator(
                context.seed, STAGE, "training", step, device=setup.teacher.device
            )
            with torch.enable_grad():
                loss = training.loss(training.draw_prompts(step, generator), generator)
                adam.zero_grad()
                loss.backward()
            adam.step()
            progress.advance()
            is_last = step + 1 == num_steps
            if is_last or time.monotonic() - saved > CHECKPOINT_INTERVAL_S:
                save_checkpoint(path, setup.key, step + 1, network, adam, state)
                context.run_dir.append_metrics(
                    f"{STAGE}/network", step + 1, {"loss": float(loss.detach())}
                )
                saved = time.monotonic()
