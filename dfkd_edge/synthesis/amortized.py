"""Amortized synthesis: the decoder samples around each prompt, the teacher guides and judges.

Sampling is a forward pass. Only images that the teacher does not recognise are refined, by a few
guided steps on their latents with the matching loss (squared geodesic distance, VQGAN-CLIP) and the
class anchor (cross-entropy, Wei et al., ICLR 2025), both on random views.

Shape suffixes: N images, D embedding width, L latent channels, h, w latent rows and columns,
C = 3 channels, H rows, W columns, K classes.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_edge.artifacts import PromptSet, SurrogateSet
from dfkd_edge.config import SynthesisConfig
from dfkd_edge.interfaces import StageContext
from dfkd_edge.seeding import stage_generator
from dfkd_edge.synthesis.decoder import Decoder, load_decoder
from dfkd_edge.synthesis.surrogate_store import (
    has_shard,
    read_surrogates,
    write_contact_sheet,
    write_shard,
    write_summary,
)
from dfkd_edge.synthesis.views import geometric_view
from dfkd_edge.teacher import Teacher

STAGE = "surrogates"
SHARD_SIZE = 128
"""Candidates a shard: a few seconds of work on two cores."""
REFINED_TOGETHER = 32
"""Images refined at a time: their gradients are the run's peak of memory."""
CLASS_ANCHOR_WEIGHT = 1.0
"""Best in Wei et al."""
LATENT_LIMIT = 4.0
"""Refined latents stay within so many deviations of the prior's."""


def matching_loss(embedding_ND: Tensor, target_ND: Tensor) -> Tensor:
    """Squared geodesic distance 2 arcsin^2(|e - t| / 2) of unit rows, mean over images."""
    chord_N: Tensor = (embedding_ND - target_ND).norm(dim=1).div(2).clamp(max=1 - 1e-6)
    distance_N: Tensor = 2 * chord_N.arcsin().square()
    return distance_N.mean()


def offset_conditions(target_ND: Tensor, length: float, generator: torch.Generator) -> Tensor:
    """Move unit points by up to `length` at random, so that one prompt has many images."""
    direction_ND = F.normalize(torch.randn(target_ND.shape, generator=generator), dim=1)
    length_N1 = length * torch.rand((len(target_ND), 1), generator=generator)
    return F.normalize(target_ND + length_N1 * direction_ND.to(target_ND), dim=1)


def refine(
    latent_NLhw: Tensor,
    target_ND: Tensor,
    label_N: Tensor,
    teacher: Teacher,
    decoder: Decoder,
    config: SynthesisConfig,
    generator: torch.Generator,
) -> Tensor:
    """Take guided steps on latents, each of `refinement_rate` along the normalised gradient."""
    latent_NLhw = latent_NLhw.clone()
    for _ in range(config.num_refinement_steps):
        latent_NLhw.requires_grad_(True)
        with torch.enable_grad():
            image_NCHW = decoder.decode(latent_NLhw)
            view_NCHW = geometric_view(image_NCHW, teacher.image_size_px, generator, min_scale=0.6)
            embedding_ND = teacher.embed_images(view_NCHW)
            anchor = F.cross_entropy(teacher.logits(embedding_ND), label_N)
            loss = matching_loss(embedding_ND, target_ND) + CLASS_ANCHOR_WEIGHT * anchor
            (gradient,) = torch.autograd.grad(loss * len(latent_NLhw), latent_NLhw)
        size_N = gradient.flatten(1).square().mean(1).sqrt()[:, None, None, None]
        step_NLhw = config.refinement_rate * gradient / size_N.clamp(min=1e-12)
        latent_NLhw = (latent_NLhw.detach() - step_NLhw).clamp(-LATENT_LIMIT, LATENT_LIMIT)
    return latent_NLhw


@torch.no_grad()
def make_candidates(
    number: int, size: int, prompts: PromptSet, teacher: Teacher, decoder: Decoder,
    config: SynthesisConfig, seed: int,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Make the candidates of one shard; classes take turns, styles are drawn.

    Returns:
        images uint8 [N, H, W, C], class_index, style_index [N], embeddings [N, D], probability [N]
        (the asked class's under the zero-shot head), is_recognised [N].
    """
    generator = stage_generator(seed, STAGE, number)
    num_classes = len(prompts.class_names)
    num_styles = len(prompts.style_labels)
    label_N = (torch.arange(size) + number * SHARD_SIZE) % num_classes
    style_N = torch.randint(0, num_styles, (size,), generator=generator)
    table_KSD = torch.from_numpy(prompts.embeddings).view(num_classes, num_styles, -1)
    target_ND = table_KSD[label_N, style_N].to(teacher.device)
    label_N = label_N.to(teacher.device)
    condition_ND = offset_conditions(target_ND, config.condition_noise, generator)
    latent_NLhw = decoder.sample(
        condition_ND, generator, config.num_sampling_steps, config.guidance_scale
    )
    image_NCHW = decoder.decode(latent_NLhw)
    embedding_ND = teacher.embed_images(image_NCHW)
    missed_N = (teacher.logits(embedding_ND).argmax(1) != label_N).nonzero().squeeze(1)
    for row_N in missed_N.split(REFINED_TOGETHER) if config.num_refinement_steps else ():
        refined = refine(
            latent_NLhw[row_N],
            target_ND[row_N],
            label_N[row_N],
            teacher,
            decoder,
            config,
            generator,
        )
        image_NCHW[row_N] = decoder.decode(refined)
        embedding_ND[row_N] = teacher.embed_images(image_NCHW[row_N])
    logits_NK = teacher.logits(embedding_ND)
    probability_N = logits_NK.softmax(1).gather(1, label_N[:, None]).squeeze(1)
    pixels = (image_NCHW * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return {
        "images": pixels,
        "class_index": label_N.cpu().numpy(),
        "style_index": style_N.numpy(),
        "embeddings": embedding_ND.cpu().numpy(),
        "probability": probability_N.cpu().numpy(),
        "is_recognised": (logits_NK.argmax(1) == label_N).cpu().numpy(),
    }


def synthesize(
    prompts: PromptSet, teacher: Teacher, config: SynthesisConfig, context: StageContext
) -> SurrogateSet:
    """Make the surrogate images, or read them when they are already there."""
    folder = context.run_dir.stage_dir(STAGE)
    key = context.stage_key(
        STAGE, config, teacher.name, teacher.classes, prompts.style_labels, prompts.diversity
    )
    num_shards = math.ceil(config.num_images / SHARD_SIZE)
    is_complete = context.run_dir.is_complete(STAGE, key)
    if not is_complete:
        _make_shards(prompts, teacher, config, context, key)
    surrogates = read_surrogates(folder, num_shards, prompts.class_names, config.heldout_share, key)
    if not is_complete:
        files = [write_summary(folder, surrogates), write_contact_sheet(folder, surrogates)]
        files += sorted(folder.glob("shard-*.safetensors"))[:num_shards]
        context.run_dir.complete(STAGE, key, files)
        context.reporter.note(
            f"  {len(surrogates)} of {surrogates.summary['num_candidates']} images kept, contact "
            f"sheet: {files[1]}"
        )
    return surrogates


def _make_shards(
    prompts: PromptSet, teacher: Teacher, config: SynthesisConfig, context: StageContext, key: str
) -> None:
    folder = context.run_dir.stage_dir(STAGE)
    num_shards = math.ceil(config.num_images / SHARD_SIZE)
    wanted = [n for n in range(num_shards) if not has_shard(folder, n, key)]
    if not wanted:
        return
    decoder = load_decoder(device=context.device)
    if decoder.embed_dim != teacher.embed_dim:
        raise decoder.mismatch(teacher.embed_dim)
    done = (num_shards - len(wanted)) * SHARD_SIZE
    with context.reporter.stage("synthesizing images", config.num_images, done) as progress:
        recognised, made = 0, 0
        for number in wanted:
            size = min(SHARD_SIZE, config.num_images - number * SHARD_SIZE)
            candidates = make_candidates(
                number, size, prompts, teacher, decoder, config, context.seed
            )
            write_shard(folder, number, key, candidates)
            recognised, made = recognised + int(candidates["is_recognised"].sum()), made + size
            context.run_dir.append_metrics(STAGE, number + 1, {"recognised": recognised / made})
            progress.advance(size, f"teacher recognises {recognised / made:.0%}")
