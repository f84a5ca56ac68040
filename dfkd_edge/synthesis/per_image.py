"""Per-image synthesis: VQGAN-CLIP, the optimisation that the literature uses, as a reference.

Every image is a latent of its own. Adam moves it until random views of the decoded picture lie near
the prompt in the teacher's space (Crowson et al., VQGAN-CLIP, 2022) and the teacher recognises the
class (class anchor; Wei et al., ICLR 2025): hundreds of passes through decoder and teacher.

Shape suffixes: N images, D embedding width, L latent channels, h, w latent rows and columns,
C = 3 channels, H rows, W columns.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_edge.config.settings import SynthesisConfig
from dfkd_edge.interfaces import SynthesisBatch, SynthesizedImages
from dfkd_edge.networks.memory import Parts, made_in_parts
from dfkd_edge.networks.mixed_precision import Precision
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.seeding import stage_generator
from dfkd_edge.synthesis.decoder import LatentDecoder
from dfkd_edge.synthesis.decoders import load_latent_decoder
from dfkd_edge.synthesis.guidance import augmented_views, guidance_loss, total_variation
from dfkd_edge.synthesis.setup import SynthesisSetup

OPTIMISING = "optimising images"


class PerImageSynthesizer:
    """Optimises latents, as many at a time as fit into memory."""

    def __init__(self, teacher: Teacher, decoder: LatentDecoder, config: SynthesisConfig) -> None:
        """Optimise so many latents together as `parts` says, which `load_per_image` sets."""
        self.teacher, self.decoder, self.config = teacher, decoder, config
        self.parts = Parts(OPTIMISING, 1)

    def __call__(self, batch: SynthesisBatch) -> SynthesizedImages:
        """Optimise a latent for each prompt."""
        return made_in_parts(batch, self.parts, self._make)

    def try_step(self, num: int) -> None:
        """Take a step on so many images, for what it takes of memory alone."""
        generator = stage_generator(0, "memory", device=self.teacher.device)
        latent_NLhw = self.decoder.start(num, self.decoder.latent_shape[1], generator)
        target_ND = self.teacher.head_KD[:1].expand(num, -1)
        label_N = torch.zeros(num, dtype=torch.long, device=self.teacher.device)
        batch = SynthesisBatch(target_ND, label_N, label_N, generator)
        self.gradient(latent_NLhw.requires_grad_(), batch, 0)

    def _make(self, batch: SynthesisBatch, _: slice) -> SynthesizedImages:
        image_NCHW = self.decoder.decode(self.optimise(batch))
        return SynthesizedImages(image_NCHW, self.teacher.embed_images(image_NCHW))

    def optimise(self, batch: SynthesisBatch) -> Tensor:
        """Find a latent [N, L, h, w] for each prompt.

        With `low_resolution_share` the first steps are at half the side, a quarter of the pixels.
        """
        config, side = self.config, self.decoder.latent_shape[1]
        num_low = round(config.num_optimisation_steps * config.low_resolution_share)
        start_side = max(side // 2, 1) if num_low else side
        latent_NLhw = self.decoder.start(len(batch.target_ND), start_side, batch.generator)
        if num_low:  # Adam starts anew after them: its moments are of the small latent
            latent_NLhw = self.descend(latent_NLhw, batch, range(num_low))
            latent_NLhw = F.interpolate(latent_NLhw, size=(side, side), mode="bilinear")
        return self.descend(latent_NLhw, batch, range(num_low, config.num_optimisation_steps))

    def descend(self, latent_NLhw: Tensor, batch: SynthesisBatch, steps: range) -> Tensor:
        """Take some of the steps, with an Adam of their own."""
        latent_NLhw, adam = self._prepared(latent_NLhw)
        for step in steps:
            latent_NLhw.grad = self.gradient(latent_NLhw, batch, step)
            adam.step()
            latent_NLhw.data = self.decoder.clamp(latent_NLhw.detach())
            batch.tell(1 / steps.stop)
        return latent_NLhw.detach()

    def gradient(self, latent_NLhw: Tensor, batch: SynthesisBatch, step: int) -> Tensor:
        """Gradient of the loss of a step with respect to the latents."""
        with torch.enable_grad():
            loss = self.loss(latent_NLhw, batch, step)
            return Precision(latent_NLhw.device.type).gradient(loss, latent_NLhw)

    def _prepared(self, latent_NLhw: Tensor) -> tuple[Tensor, torch.optim.Adam]:
        latent_NLhw = self.decoder.clamp(latent_NLhw.to(self.teacher.device)).requires_grad_()
        rate = self.config.optimisation_rate * self.decoder.spread
        return latent_NLhw, torch.optim.Adam([latent_NLhw], lr=rate)

    def loss(self, latent_NLhw: Tensor, batch: SynthesisBatch, step: int) -> Tensor:
        """Guidance over views, total variation and L2 of the latent, summed over images.

        A sum, so that the gradient of an image does not depend on how many are optimised together.
        """
        config, teacher = self.config, self.teacher
        image_NCHW = self.decoder.decode(latent_NLhw)
        view_NCHW = augmented_views(
            image_NCHW, config.num_views, teacher.image_size_px, batch.generator
        )
        loss = guidance_loss(
            teacher.embed_images(view_NCHW),
            batch.target_ND.repeat(config.num_views, 1),
            batch.label_N.repeat(config.num_views),
            teacher,
        )
        loss = loss + config.total_variation_weight * total_variation(image_NCHW)
        l2_weight = config.latent_l2_weight / (2 * step + 1) / 2  # decays as in VQGAN-CLIP
        return len(latent_NLhw) * (loss + l2_weight * latent_NLhw.square().mean())


def load_per_image(setup: SynthesisSetup) -> PerImageSynthesizer:
    """Load the decoder, and find how many images are optimised together.

    Raises:
        DfkdEdgeError: as `load_latent_decoder`.
    """
    teacher, config = setup.teacher, setup.config
    made = PerImageSynthesizer(teacher, load_latent_decoder(config, teacher), config)
    made.parts = setup.parts(OPTIMISING, made.try_step, setup.shard_size)
    return made
