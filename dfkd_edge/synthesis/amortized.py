"""Amortized synthesis: one network maps prompts to latents, so that an image is a forward pass.

For the embedded teacher the network is the embedded prior, which is trained already; for any other
teacher or decoder one is trained on the prompts. Images that the teacher does not recognise are
refined by a few guided steps on their latents: the matching loss (squared geodesic distance,
VQGAN-CLIP) and the class anchor (cross-entropy, Wei et al., ICLR 2025), both on random views.

Shape suffixes: N images, D embedding width, L latent channels, h, w latent rows and columns,
C = 3 channels, H rows, W columns.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_edge.config.settings import SynthesisConfig
from dfkd_edge.drawings.memory import DrawingMemory, retrieve_drawings
from dfkd_edge.interfaces import SynthesisBatch, SynthesizedImages, Synthesizer
from dfkd_edge.networks.memory import images_that_fit, parts_of
from dfkd_edge.networks.teacher import MINI, Teacher
from dfkd_edge.networks.views import geometric_view
from dfkd_edge.seeding import stage_generator
from dfkd_edge.synthesis.decoder import Decoder, LatentDecoder, load_decoder
from dfkd_edge.synthesis.decoders import load_latent_decoder
from dfkd_edge.synthesis.guidance import guidance_loss
from dfkd_edge.synthesis.latent_network import LatentNetwork
from dfkd_edge.synthesis.network_training import trained_network
from dfkd_edge.synthesis.retrieval import RetrievalSynthesizer
from dfkd_edge.synthesis.setup import SynthesisSetup

REFINED_TOGETHER = 32
"""Images refined at a time: what their gradients keep is the peak of the run's memory."""
SAMPLING_SHARE, DECODING_SHARE = 0.5, 0.3
"""Of the prior's work, about this share is sampling; of the rest, decoding before refinement. Only
the progress bar uses them."""


def offset_conditions(target_ND: Tensor, length: float, generator: torch.Generator) -> Tensor:
    """Move unit prompts by up to `length` in a random direction: one prompt has many images."""
    device = generator.device
    noise_ND = torch.randn(target_ND.shape, generator=generator, device=device)
    length_N1 = length * torch.rand((len(target_ND), 1), generator=generator, device=device)
    offset_ND = length_N1 * F.normalize(noise_ND, dim=1)
    return F.normalize(target_ND + offset_ND.to(target_ND), dim=1)


def refine(
    latent_NLhw: Tensor,
    batch: SynthesisBatch,
    teacher: Teacher,
    decoder: LatentDecoder,
    config: SynthesisConfig,
) -> Tensor:
    """Descend the guidance loss from latents; the whole batch is refined with one gradient."""
    latent_NLhw = latent_NLhw.clone()
    for _ in range(config.num_refinement_steps):
        latent_NLhw.requires_grad_(True)
        with torch.enable_grad():
            image_NCHW = decoder.decode(latent_NLhw)
            view_NCHW = geometric_view(
                image_NCHW, teacher.image_size_px, batch.generator, min_scale=0.6
            )
            embedding_ND = teacher.embed_images(view_NCHW)
            loss = guidance_loss(embedding_ND, batch.target_ND, batch.label_N, teacher)
            # times N: the loss is a mean over images, and each image wants its own gradient
            (gradient,) = torch.autograd.grad(loss * len(latent_NLhw), latent_NLhw)
        # the root mean square is 1, so the rate is in units of the latents' deviation
        size_N = gradient.flatten(1).square().mean(1).sqrt()[:, None, None, None]
        step_NLhw = config.refinement_rate * gradient / size_N.clamp(min=1e-12)
        latent_NLhw = decoder.clamp(latent_NLhw.detach() - step_NLhw)
        batch.tell(1 / config.num_refinement_steps)
    return latent_NLhw


def refine_missed(
    latent_NLhw: Tensor,
    batch: SynthesisBatch,
    teacher: Teacher,
    decoder: LatentDecoder,
    config: SynthesisConfig,
) -> tuple[Tensor, Tensor]:
    """Decode latents and refine those whose image the teacher does not recognise.

    Returns:
        image_NCHW in [0, 1], and the teacher's embedding_ND of it.
    """
    image_NCHW = decoder.decode(latent_NLhw)
    embedding_ND = teacher.embed_images(image_NCHW)
    batch.tell(DECODING_SHARE)
    if not config.num_refinement_steps:
        return image_NCHW, embedding_ND
    missed_N = (teacher.logits(embedding_ND).argmax(1) != batch.label_N).nonzero().squeeze(1)
    for row_N in missed_N.split(REFINED_TOGETHER) if len(missed_N) else ():
        part = batch.of_rows(row_N, (1 - DECODING_SHARE) * len(row_N) / len(missed_N))
        refined = refine(latent_NLhw[row_N], part, teacher, decoder, config)
        image_NCHW[row_N] = decoder.decode(refined)
        embedding_ND[row_N] = teacher.embed_images(image_NCHW[row_N])
    return image_NCHW, embedding_ND


class PriorSynthesizer:
    """Samples the embedded prior, which is conditioned on the embedded teacher's space."""

    def __init__(self, teacher: Teacher, decoder: Decoder, config: SynthesisConfig) -> None:
        """Use networks that are loaded already."""
        self.teacher, self.decoder, self.config = teacher, decoder, config

    def __call__(self, batch: SynthesisBatch) -> SynthesizedImages:
        """Sample a latent near each prompt, then refine."""
        config = self.config
        condition_ND = offset_conditions(batch.target_ND, config.condition_noise, batch.generator)
        latent_NLhw = self.decoder.sample(
            condition_ND,
            batch.generator,
            config.num_sampling_steps,
            config.guidance_scale,
            batch.with_share(SAMPLING_SHARE).tell,
        )
        rest = batch.with_share(1 - SAMPLING_SHARE)
        return SynthesizedImages(
            *refine_missed(latent_NLhw, rest, self.teacher, self.decoder, config)
        )


class NetworkSynthesizer:
    """Runs a network that was trained on the prompts."""

    def __init__(
        self, network: LatentNetwork, teacher: Teacher, decoder: LatentDecoder,
        config: SynthesisConfig,
    ) -> None:  # fmt: skip
        """Find how many images fit into memory while they are refined."""
        self.network, self.teacher, self.decoder, self.config = network, teacher, decoder, config

        def loss_of(num: int) -> Tensor:
            generator = stage_generator(0, "memory", device=teacher.device)
            latent = decoder.start(num, decoder.latent_shape[1], generator).to(teacher.device)
            return teacher.embed_images(decoder.decode(latent.requires_grad_())).sum()

        self.images_together = images_that_fit(loss_of, config.memory_mib, REFINED_TOGETHER)

    def __call__(self, batch: SynthesisBatch) -> SynthesizedImages:
        """Map each prompt and some noise to a latent, then refine."""
        images, embeddings = [], []
        for part in parts_of(batch, self.images_together):
            noise_NTZ = self.network.draw_noise(len(part.label_N), batch.generator)
            latent_NLhw = self.network(part.target_ND, noise_NTZ.to(part.target_ND))
            latent_NLhw = self.decoder.clamp(latent_NLhw)
            image_NCHW, embedding_ND = refine_missed(
                latent_NLhw, part, self.teacher, self.decoder, self.config
            )
            images.append(image_NCHW)
            embeddings.append(embedding_ND)
        return SynthesizedImages(torch.cat(images), torch.cat(embeddings))


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
        ConfigError: the decoder cannot make images of that size.
        ArtifactError: the decoder cannot be read.
        EnvironmentLackingError: the decoder's weights are not here and cannot be fetched.
    """
    teacher, config = setup.teacher, setup.config
    if uses_embedded_prior(teacher.name, config):
        prior = PriorSynthesizer(teacher, load_decoder(device=setup.context.device), config)
        if not config.exemplar_share:
            return prior
        memory = setup.memory or DrawingMemory(teacher, setup.context.reporter)
        drawings = retrieve_drawings(memory)
        side_px = prior.decoder.image_size_px
        return RetrievalSynthesizer(prior, drawings, teacher, config.exemplar_share, side_px)
    decoder = load_latent_decoder(config, teacher)
    return NetworkSynthesizer(trained_network(decoder, setup), teacher, decoder, config)
