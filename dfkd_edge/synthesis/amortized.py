"""Amortized synthesis: an image costs little, for what it would take is paid once or not at all.

For the embedded teacher a network maps prompts to latents: the embedded prior, which is trained
already. For any other teacher or decoder each latent takes a few of the steps that per-image
synthesis takes hundreds of, from a random start or, on request, from where a network that is
trained on the prompts has moved it. Images that the teacher does not recognise are refined by a few
guided steps on their latents: the matching loss (squared geodesic distance, VQGAN-CLIP) and the
class anchor (cross-entropy, Wei et al., ICLR 2025), both on random views.

Shape suffixes: N images, D embedding width, L latent channels, h, w latent rows and columns,
C = 3 channels, H rows, W columns.
"""

from dataclasses import dataclass, field, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_edge.config.settings import MINI, SynthesisConfig
from dfkd_edge.drawings.memory import DrawingMemory, retrieve_drawings
from dfkd_edge.interfaces import SynthesisBatch, SynthesizedImages, Synthesizer
from dfkd_edge.networks.memory import Parts, batch_in_parts, in_parts, made_in_parts
from dfkd_edge.networks.mixed_precision import Precision
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.networks.views import geometric_view
from dfkd_edge.seeding import stage_generator
from dfkd_edge.synthesis.decoder import Decoder, LatentDecoder, load_decoder
from dfkd_edge.synthesis.decoders import load_latent_decoder
from dfkd_edge.synthesis.guidance import guidance_loss, recognised
from dfkd_edge.synthesis.latent_network import LatentNetwork
from dfkd_edge.synthesis.network_training import num_steps_of, trained_network
from dfkd_edge.synthesis.per_image import OPTIMISING, PerImageSynthesizer
from dfkd_edge.synthesis.retrieval import RetrievalSynthesizer
from dfkd_edge.synthesis.setup import SynthesisSetup

STEPS, STEPS_ALONE = 2, 12
"""Of refinement, beside drawings and where the embedded prior makes every image: 12 gain 3.6 points
of top-1 there (examples/measurements)."""
DECODING, REFINING = "decoding images", "refining images"
DESCENDED_TOGETHER = 16  # Images, in several views, whose gradients are kept at a time at most
REFINED_TOGETHER = 32  # Images: what their gradients keep is the peak of the run's memory
PRIOR_STEPS, PRIOR_GUIDANCE = 6, 2.5  # Of the embedded prior (ours)
SAMPLING_SHARE = 0.5  # Of the prior's work, for the progress bar alone
DESCENT_SHARE = 0.9  # Of the work on an image that is descended to; for the bar, too
DECODING_SHARE = 0.3  # Of what follows sampling, before any refinement; for the bar, too


def offset_conditions(target_ND: Tensor, length: float, generator: torch.Generator) -> Tensor:
    """Move unit prompts by up to `length` in a random direction: one prompt has many images."""
    device = generator.device
    noise_ND = torch.randn(target_ND.shape, generator=generator, device=device)
    length_N1 = length * torch.rand((len(target_ND), 1), generator=generator, device=device)
    offset_ND = length_N1 * F.normalize(noise_ND, dim=1)
    return F.normalize(target_ND + offset_ND.to(target_ND), dim=1)


def calmed(latent_NLhw: Tensor, share: float) -> Tensor:
    """Take starts towards their mean, so that a share of their deviation is left."""
    mean_1L11 = latent_NLhw.mean((0, 2, 3), keepdim=True)
    return mean_1L11.lerp(latent_NLhw, share)


@dataclass(frozen=True, slots=True)
class Refiner:
    """Decodes latents, and refines those whose image the teacher does not recognise."""

    teacher: Teacher
    decoder: LatentDecoder
    config: SynthesisConfig
    decoding: Parts = field(default_factory=partial(Parts, DECODING, 128))
    """Images seen together without gradients."""
    refining: Parts = field(default_factory=partial(Parts, REFINING, REFINED_TOGETHER))
    """And with them."""

    @property
    def num_steps(self) -> int:
        """Steps of an image that is missed."""
        asked, teacher = self.config.num_refinement_steps, self.teacher.name
        if asked >= 0:
            return asked
        is_alone = uses_embedded_prior(teacher, self.config) and not self.config.exemplar_share
        return STEPS_ALONE if is_alone else STEPS

    def __call__(self, latent_NLhw: Tensor, batch: SynthesisBatch) -> SynthesizedImages:
        """Return the images, some of them refined."""
        num = len(latent_NLhw)
        seen = in_parts(num, self.decoding, lambda rows: self.seen(latent_NLhw[rows]))
        image_NCHW, embedding_ND = (torch.cat(parts) for parts in zip(*seen, strict=True))
        batch.tell(DECODING_SHARE)
        logits_NK, margin = self.teacher.logits(embedding_ND), self.config.recognition_margin
        missed_N = (~recognised(logits_NK, batch.label_N, margin)).nonzero().squeeze(1)
        if self.num_steps and len(missed_N):
            together = max(REFINED_TOGETHER // self.config.num_refinement_views, 1)
            for row_N in missed_N.split(together):
                part = batch.of_rows(row_N, (1 - DECODING_SHARE) * len(row_N) / len(missed_N))
                made = self._refined_in_parts(latent_NLhw[row_N], part)
                image_NCHW[row_N], embedding_ND[row_N] = made.image_NCHW, made.embedding_ND
        return SynthesizedImages(image_NCHW, embedding_ND)

    def seen(self, latent_NLhw: Tensor) -> tuple[Tensor, Tensor]:
        """Decode latents; returns the images and the teacher's embeddings."""
        image_NCHW = self.decoder.decode(latent_NLhw)
        return image_NCHW, self.teacher.embed_images(image_NCHW)

    def _refined_in_parts(self, latent_NLhw: Tensor, batch: SynthesisBatch) -> SynthesizedImages:
        def make(part: SynthesisBatch, rows: slice) -> SynthesizedImages:
            return SynthesizedImages(*self.seen(self.refined(latent_NLhw[rows], part)))

        return made_in_parts(batch, self.refining, make)

    def refined(self, latent_NLhw: Tensor, batch: SynthesisBatch) -> Tensor:
        """Descend the guidance loss from latents, on new random views of each image a step."""
        teacher, num_steps = self.teacher, self.num_steps
        num_views = self.config.num_refinement_views
        target_ND, label_N = batch.target_ND.repeat(num_views, 1), batch.label_N.repeat(num_views)
        latent_NLhw, precision = latent_NLhw.clone(), Precision(latent_NLhw.device.type)
        for _ in range(num_steps):
            latent_NLhw.requires_grad_(True)
            with torch.enable_grad():
                image_NCHW = self.decoder.decode(latent_NLhw)
                view_NCHW = geometric_view(
                    image_NCHW.repeat(num_views, 1, 1, 1),
                    teacher.image_size_px,
                    batch.generator,
                    min_scale=0.6,
                )
                embedding_ND = teacher.embed_images(view_NCHW)
                loss = guidance_loss(embedding_ND, target_ND, label_N, teacher)
                # times N: the loss is a mean over images, and each image wants its own gradient
                gradient = precision.gradient(loss * len(latent_NLhw), latent_NLhw)
            latent_NLhw = self.decoder.descend(
                latent_NLhw.detach(), gradient, self.config.refinement_rate
            )
            batch.tell(1 / num_steps)
        return latent_NLhw


@dataclass(frozen=True, slots=True)
class PriorSynthesizer:
    """Samples the embedded prior, which is conditioned on the embedded teacher's space."""

    decoder: Decoder
    config: SynthesisConfig
    refine: Refiner

    def __call__(self, batch: SynthesisBatch) -> SynthesizedImages:
        """Sample a latent near each prompt, then refine."""
        config = self.config
        condition_ND = offset_conditions(batch.target_ND, config.condition_noise, batch.generator)
        latent_NLhw = self.decoder.sample(
            condition_ND,
            batch.generator,
            config.num_sampling_steps or PRIOR_STEPS,
            config.guidance_scale or PRIOR_GUIDANCE,
            batch.of_rows(slice(None), SAMPLING_SHARE).tell,
        )
        return self.refine(latent_NLhw, batch.of_rows(slice(None), 1 - SAMPLING_SHARE))


class DescentSynthesizer:
    """Goes a short way as per-image does, from starts that a network may have moved before."""

    def __init__(
        self, network: LatentNetwork | None, optimiser: PerImageSynthesizer, refine: Refiner
    ) -> None:
        self.network, self.optimiser, self.refine = network, optimiser, refine

    def __call__(self, batch: SynthesisBatch) -> SynthesizedImages:
        """Draw a start for each prompt, descend from it, then refine."""
        num, generator, decoder = len(batch.label_N), batch.generator, self.refine.decoder
        latent_NLhw = decoder.start(num, decoder.latent_shape[1], generator).to(batch.target_ND)
        config = self.refine.config
        if self.network:
            latent_NLhw = decoder.clamp(self.network(batch.target_ND, latent_NLhw))
        else:
            latent_NLhw = calmed(latent_NLhw, config.descent_start)
        num_steps = config.num_descent_steps
        if not num_steps:
            return self.refine(latent_NLhw, batch)

        def descend(part: SynthesisBatch, rows: slice) -> Tensor:
            return self.optimiser.descend(latent_NLhw[rows], part, range(num_steps))

        descent = batch.of_rows(slice(None), DESCENT_SHARE)
        latent_NLhw = torch.cat(batch_in_parts(descent, self.optimiser.parts, descend))
        return self.refine(latent_NLhw, batch.of_rows(slice(None), 1 - DESCENT_SHARE))


def sized_refiner(teacher: Teacher, decoder: LatentDecoder, setup: SynthesisSetup) -> Refiner:
    """Make a refiner that works on as many images at a time as the device has memory for."""

    def seen(num: int, *, with_gradients: bool) -> None:
        generator = stage_generator(0, "memory", device=teacher.device)
        latent_NLhw = decoder.start(num, decoder.latent_shape[1], generator)
        with torch.set_grad_enabled(with_gradients):
            image_NCHW = decoder.decode(latent_NLhw.requires_grad_(with_gradients))
            num_views = setup.config.num_refinement_views if with_gradients else 1
            embedding_ND = teacher.embed_images(image_NCHW.repeat(num_views, 1, 1, 1))
        if with_gradients:  # the graph of `refined` without its loss, which is small
            torch.autograd.grad(embedding_ND.sum(), latent_NLhw)

    decoding = setup.parts(DECODING, partial(seen, with_gradients=False), setup.shard_size)
    refining = setup.parts(REFINING, partial(seen, with_gradients=True), REFINED_TOGETHER)
    return Refiner(teacher, decoder, setup.config, decoding, refining)


def sized_synthesizer(
    network: LatentNetwork | None, decoder: LatentDecoder, setup: SynthesisSetup
) -> DescentSynthesizer:
    """Make one that descends and refines as many images at a time as fit."""
    teacher, config = setup.teacher, setup.config
    views = config.num_descent_views
    optimiser = PerImageSynthesizer(teacher, decoder, replace(config, num_views=views))
    if config.num_descent_steps:
        optimiser.parts = setup.parts(OPTIMISING, optimiser.try_step, DESCENDED_TOGETHER)
    return DescentSynthesizer(network, optimiser, sized_refiner(teacher, decoder, setup))


def uses_embedded_prior(teacher_name: str, config: SynthesisConfig) -> bool:
    """Whether the embedded prior makes the latents; otherwise a network is trained for it.

    The prior was trained on the embedded teacher, in latents of the embedded decoder's own size.
    """
    return teacher_name == config.decoder == MINI and not config.image_size_px


def uses_drawings(teacher_name: str, config: SynthesisConfig) -> bool:
    """Whether images start from drawings of the embedded memory, where it has some of the class."""
    is_embedded = config.method == "amortized" and uses_embedded_prior(teacher_name, config)
    return is_embedded and config.exemplar_share > 0


def load_amortized(setup: SynthesisSetup) -> Synthesizer:
    """Load the embedded prior, and its memory of drawings; or train a network.

    Raises:
        DfkdEdgeError: as `load_latent_decoder`.
    """
    teacher, config = setup.teacher, setup.config
    if uses_embedded_prior(teacher.name, config):
        embedded = load_decoder(device=setup.context.device)
        prior = PriorSynthesizer(embedded, config, sized_refiner(teacher, embedded, setup))
        if not config.exemplar_share:
            return prior
        memory = setup.memory or DrawingMemory(teacher)
        drawings = retrieve_drawings(memory)
        side_px = prior.decoder.image_size_px
        shares = config.exemplar_share, config.scene_share
        return RetrievalSynthesizer(prior, drawings, teacher, *shares, side_px)
    decoder = load_latent_decoder(config, teacher)
    is_trained = num_steps_of(config, len(setup.prompts.embeddings)) > 0
    network = trained_network(decoder, setup) if is_trained else None
    return sized_synthesizer(network, decoder, setup)
