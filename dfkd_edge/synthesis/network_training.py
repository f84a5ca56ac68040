"""The training of amortized synthesis' network on nothing but the prompts.

The loss: the distance of random views of the decoded picture to the prompt and the class anchor, as
in per-image synthesis, plus the latent's square and total variation, less how far the pictures of
one prompt lie apart. That distance is measured beside the prompt's own direction: spread along it
takes from the matching loss what it gives, and is not asked for (ours).

A step works in parts, whose gradients add up in their order, whichever rank finds them: it depends
on the seed, its number and what a checkpoint keeps, so that a training that was stopped, or goes on
with more ranks, ends with the same bits.

Shape suffixes: N = P M images, P prompts, M draws of each, V views, D embedding width, L latent
channels, h, w latent rows and columns, G all gradients in a row, C = 3 channels, H rows,
W columns.
"""

import contextlib
import math
from pathlib import Path
from typing import NamedTuple

import filelock
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dfkd_edge.config.settings import SynthesisConfig
from dfkd_edge.files import file_hash
from dfkd_edge.networks.draws import PartGenerator
from dfkd_edge.networks.memory import Parts, in_parts
from dfkd_edge.networks.mixed_precision import Precision
from dfkd_edge.networks.transfer import sent
from dfkd_edge.runs.checkpoint import SaveClock, load_checkpoint, save_checkpoint
from dfkd_edge.runs.shared import await_file
from dfkd_edge.seeding import stage_generator
from dfkd_edge.synthesis.decoder import LatentDecoder
from dfkd_edge.synthesis.guidance import augmented_views, guidance_loss, total_variation
from dfkd_edge.synthesis.latent_network import LatentNetwork
from dfkd_edge.synthesis.setup import STAGE, SynthesisSetup

TRAINING = "training the synthesizer"
DRAWS = 2  # Pictures of each prompt in a step: their distance needs a pair, and more visit fewer
MOST_PARTS = 4  # Of a step, where there is memory: so many ranks share it, at equal bits
WARMUP_SHARE = 0.05  # Of the steps: the rate rises over them; a half cosine follows
STEPS_BETWEEN_METRICS = 10  # At least: reading a loss waits for the device
MEMORY_OF_DIFFICULTY = 0.9  # Weight of the past in the moving average of a prompt's difficulty
LEAST_DIFFICULTY = 1e-3  # No prompt is out of the draw for good


def mean_distance_of_draws(embedding_VPMD: Tensor, target_PD: Tensor) -> Tensor:
    """Mean of 1 - cosine over pairs of draws of a prompt, of what is beside the prompt in them."""
    num, target_P1D = embedding_VPMD.shape[2], target_PD[:, None]
    along_VPM1 = (embedding_VPMD * target_P1D).sum(-1, keepdim=True)
    beside_VPMD = F.normalize(embedding_VPMD - along_VPM1 * target_P1D, dim=-1)
    pairs_VP = beside_VPMD.sum(2).square().sum(2) - num  # unit rows: the diagonal sums to num
    return (1 - pairs_VP / (num * (num - 1))).mean()


def rate_at(step: int, num_steps: int, peak: float) -> float:
    """Learning rate of a step: a linear rise to the peak, then a half cosine to 0."""
    num_warmup = max(1, round(num_steps * WARMUP_SHARE))
    if step < num_warmup:
        return peak * (step + 1) / num_warmup
    share = (step - num_warmup) / max(1, num_steps - num_warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * share))


def prompts_of_step(config: SynthesisConfig) -> tuple[int, int]:
    """Prompts of a step, and how many of them are not replayed; at least one: the turn goes on."""
    num = max(1, config.training_batch_size // DRAWS)
    return num, max(1, num - round(num * config.replay_share))


def most_together(config: SynthesisConfig) -> int:
    """Prompts of a step's largest part; one alone is decoded as where memory is short."""
    num, _ = prompts_of_step(config)
    return min(num, max(2, -(-num // MOST_PARTS)))


def num_steps_of(config: SynthesisConfig, num_prompts: int) -> int:
    """Steps of a training on so many prompts; 0 where none is wanted."""
    _, in_turn = prompts_of_step(config)
    passes = -(-config.training_passes * num_prompts // in_turn)  # rounded up
    return config.num_training_steps or passes


class PartOfStep(NamedTuple):
    """What some prompts of a step gave."""

    loss: Tensor  # Mean over their images
    difficulty_P: Tensor  # 1 - probability of the class, mean over draws and views


class NetworkTraining:
    """The state of one training: its network, and how hard each prompt has been."""

    def __init__(
        self, network: LatentNetwork, decoder: LatentDecoder, setup: SynthesisSetup
    ) -> None:
        """Size the parts, whose images are counted by prompts: DRAWS pictures each."""
        self.network, self.decoder, self.setup = network, decoder, setup
        device, config = setup.teacher.device, setup.config
        self.precision = Precision(device.type)
        self.adam = torch.optim.Adam(
            network.parameters(), lr=config.training_rate, fused=self.precision.wants_fused or None
        )
        self.target_PD = torch.from_numpy(setup.prompts.embeddings).to(device)
        self.label_P = torch.from_numpy(setup.prompts.class_index).to(device)
        self.difficulty_P = torch.ones(len(self.target_PD), device=device)
        """1 - probability of the class, averaged over draws, views and visits; a checkpoint's.
        Prompts that were not seen yet are hardest."""
        self.num_prompts, self.num_in_turn = prompts_of_step(config)
        self.num_steps = num_steps_of(config, len(self.target_PD))
        limit = most_together(config)
        self.parts = Parts(TRAINING, limit)
        self.parts = setup.parts(TRAINING, self.try_step, limit)
        # the first rank's, for it says how many terms all of them sum
        self.together = self.parts.size = int(setup.context.ranks.tell(str(self.parts.size)))
        """Prompts whose gradients are one term of the step's sum, whoever finds them. It stays:
        where memory runs out, a rank halves its own terms alone."""

    def draw_prompts(self, step: int, generator: torch.Generator) -> Tensor:
        """Draw the prompts of a step in turn, and hard ones again for `replay_share` of the places.

        Each pass over all prompts has a random order that the seed and its number decide.
        """
        num, in_turn = len(self.target_PD), self.num_in_turn
        turn, begin = divmod(step * in_turn, num)
        orders: list[Tensor] = []
        while len(orders) * num < begin + in_turn:
            of_turn = stage_generator(self.setup.context.seed, STAGE, "order", turn + len(orders))
            orders.append(torch.randperm(num, generator=of_turn))
        drawn = torch.cat(orders)[begin : begin + in_turn]
        drawn = sent(drawn, self.label_P.device)
        num_replayed = self.num_prompts - in_turn
        if not num_replayed:
            return drawn
        difficulty_P = self.difficulty_P.to(generator.device)
        hard = torch.multinomial(difficulty_P, num_replayed, replacement=True, generator=generator)
        return torch.cat((drawn, hard.to(drawn.device)))

    def descend(self, step: int) -> Tensor:
        """Take a step, its gradient added up over parts; returns the loss, still on the device."""
        seed, device = self.setup.context.seed, self.setup.teacher.device
        generator = stage_generator(seed, STAGE, "training", step, device=device)
        prompt_P = self.draw_prompts(step, generator)
        weights = list(self.network.parameters())
        sizes = [*(weight.numel() for weight in weights), 1, len(prompt_P)]
        self.adam.zero_grad()
        summed_G = self.setup.context.ranks.sum_in_order(
            -(-len(prompt_P) // self.together),
            lambda number: self._gradient_of_part(number, prompt_P, generator),
            torch.empty(sum(sizes), device=device),
        )
        *gradients, loss_1, difficulty_P = summed_G.split(sizes)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient.view_as(weight)
        for group in self.adam.param_groups:
            group["lr"] = rate_at(step, self.num_steps, self.setup.config.training_rate)
        self.precision.step(self.adam)
        self._note_difficulty(prompt_P, difficulty_P)
        loss: Tensor = loss_1.squeeze(0)
        return loss

    def _gradient_of_part(
        self, number: int, prompt_P: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return all gradients in a row, the loss, and how hard each of the step's prompts was."""
        num = len(prompt_P)
        ours = range(num)[number * self.together : (number + 1) * self.together]

        def add_gradient(rows: slice) -> PartOfStep:
            here = ours[rows]
            of_images = slice(here.start * DRAWS, here.stop * DRAWS)
            draws = PartGenerator.of_rows(generator, num * DRAWS, of_images)
            share = len(here) / num
            with torch.enable_grad():
                part = self.part(prompt_P[here.start : here.stop], draws)
                self.precision.backward(share * part.loss)
            return PartOfStep(share * part.loss.detach(), part.difficulty_P)

        made = in_parts(len(ours), self.parts, add_gradient, self.adam.zero_grad)
        loss_1 = torch.stack([part.loss for part in made]).sum(0, keepdim=True)
        difficulty_P = torch.cat([part.difficulty_P for part in made])
        difficulty_P = F.pad(difficulty_P, (ours.start, num - ours.stop))  # 0 for those of others
        found = [w.grad.flatten() for w in self.network.parameters() if w.grad is not None]
        self.adam.zero_grad()
        return torch.cat((*found, loss_1, difficulty_P))

    def part(self, prompt_P: Tensor, generator: torch.Generator) -> PartOfStep:
        """Make DRAWS pictures of each prompt and judge them."""
        config, teacher = self.setup.config, self.setup.teacher
        prompt_N = prompt_P.repeat_interleave(DRAWS)
        target_ND, label_N = self.target_PD[prompt_N], self.label_P[prompt_N]
        side = self.decoder.latent_shape[1]
        start_NLhw = self.decoder.start(len(prompt_N), side, generator).to(target_ND)
        latent_NLhw = self.network(target_ND, start_NLhw)
        image_NCHW = self._decoded(latent_NLhw)
        num_views = config.num_descent_views
        view_NCHW = augmented_views(image_NCHW, num_views, teacher.image_size_px, generator)
        embedding_ND = teacher.embed_images(view_NCHW)
        labels = label_N.repeat(num_views)
        # the anchor as steep as a cosine: its slope is else `logit_scale` times the matching loss',
        # which alone tells the styles of a class apart
        weight = 1 / teacher.logit_scale
        targets = target_ND.repeat(num_views, 1)
        loss = guidance_loss(embedding_ND, targets, labels, teacher, weight)
        embedding_VPMD = embedding_ND.view(num_views, len(prompt_P), DRAWS, -1)
        distance = mean_distance_of_draws(embedding_VPMD, self.target_PD[prompt_P])
        total: Tensor = (
            loss
            - config.diversity_weight * distance
            + config.latent_l2_weight * latent_NLhw.square().mean()
            + config.total_variation_weight * total_variation(image_NCHW)
        )
        asked = teacher.logits(embedding_ND.detach()).softmax(1).gather(1, labels[:, None])
        return PartOfStep(total, 1 - asked.view(num_views, len(prompt_P), DRAWS).mean((0, 2)))

    def _decoded(self, latent_NLhw: Tensor) -> Tensor:
        """Decode latents that are clamped, but not for the gradient, which would vanish outside."""
        inside = latent_NLhw + (self.decoder.clamp(latent_NLhw) - latent_NLhw).detach()
        if self.parts.size > 1:
            return self.decoder.decode(inside)
        # The last resort where one prompt hardly fits: the decoder is run again for its gradient,
        # image by image, so that one of them at a time is kept, and not beside the views.
        images = [
            checkpoint(
                self.decoder.decode, latent_1Lhw, use_reentrant=False, preserve_rng_state=False
            )
            for latent_1Lhw in inside.split(1)
        ]
        return torch.cat(images)

    def _note_difficulty(self, prompt_P: Tensor, now_P: Tensor) -> None:
        """Move the averages of prompts towards what they were now; one may have come twice."""
        none_P = torch.zeros_like(self.difficulty_P)
        times_P = none_P.index_add(0, prompt_P, torch.ones_like(now_P))
        mean_P = none_P.index_add(0, prompt_P, now_P) / times_P.clamp(min=1)
        mean_P = torch.where(times_P > 0, mean_P, self.difficulty_P)
        self.difficulty_P.lerp_(mean_P, 1 - MEMORY_OF_DIFFICULTY).clamp_(min=LEAST_DIFFICULTY)

    @property
    def path(self) -> Path:
        """Where the checkpoint lies."""
        return self.setup.folder / "network.safetensors"

    def save(self, step: int) -> None:
        """Write the checkpoint that goes on with this step."""
        save_checkpoint(
            self.path, self.setup.key, step, self.network, self.adam, self._more_tensors()
        )

    def restore(self) -> int:
        """Go on from the checkpoint; returns the next step, 0 where there is none."""
        state = self._more_tensors()
        start = load_checkpoint(self.path, self.setup.key, self.network, self.adam, state)
        self.precision.restore(state)
        return start

    def _more_tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps besides the network and Adam's moments."""
        return {"difficulty": self.difficulty_P, **self.precision.tensors()}

    def try_step(self, num_prompts: int) -> None:
        """Find a gradient of some prompts, for what it takes of memory alone."""
        device = self.target_PD.device
        prompt_P = torch.arange(num_prompts, device=device) % len(self.target_PD)
        with torch.enable_grad():
            part = self.part(prompt_P, stage_generator(0, "memory", device=device))
            torch.autograd.grad(part.loss, list(self.network.parameters()))


def trained_network(decoder: LatentDecoder, setup: SynthesisSetup) -> LatentNetwork:
    """Train the network, go on with its training, or read it when it is trained.

    Ranks train it together. Processes that share a run otherwise wait at a lock while the first one
    trains it.
    """
    generator = stage_generator(setup.context.seed, STAGE, "network")
    target_PD = torch.from_numpy(setup.prompts.embeddings)
    network = LatentNetwork(target_PD, decoder, generator).to(setup.teacher.device)
    is_first, lock = setup.context.ranks.is_first, setup.folder / ".network.lock"
    with filelock.FileLock(lock) if is_first else contextlib.nullcontext():
        _train(NetworkTraining(network, decoder, setup))
    return network.eval().requires_grad_(False)


def _train(training: NetworkTraining) -> None:
    context, num_steps = training.setup.context, training.num_steps
    start = _restored(training)
    if start == num_steps:
        return
    with context.reporter.stage(TRAINING, num_steps, start) as progress:
        clock = SaveClock()
        for step in range(start, num_steps):
            loss = training.descend(step)
            progress.advance()
            is_last = step + 1 == num_steps
            is_turn = (step + 1) % STEPS_BETWEEN_METRICS == 0
            if context.ranks.is_first and (is_last or (is_turn and clock.is_due)):
                # first: a kill in between lets the step, and its line, come again
                context.run_dir.append_metrics(f"{STAGE}/network", step + 1, {"loss": float(loss)})
                with clock.writing():
                    training.save(step + 1)


def _restored(training: NetworkTraining) -> int:
    """Go on from the checkpoint that the first rank finds, if any; returns the next step."""
    ranks, path = training.setup.context.ranks, training.path
    if ranks.is_first:
        start = training.restore()
        ranks.tell(file_hash(path) if start else "")
        return start
    known = ranks.tell()
    if not known:
        return 0
    await_file(path, known, ranks.name)
    return training.restore()
