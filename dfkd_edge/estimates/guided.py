"""What guided steps keep in memory: pictures that are decoded and seen in views, with gradients."""

from dataclasses import dataclass

import torch

from dfkd_edge.config.settings import SynthesisConfig
from dfkd_edge.estimates.card import Card
from dfkd_edge.networks.memory import Need, measured_need
from dfkd_edge.synthesis.amortized import DESCENDED_TOGETHER, REFINED_TOGETHER
from dfkd_edge.synthesis.network_training import DRAWS, most_together, num_steps_of
from dfkd_edge.synthesis.pixels import PixelDecoder
from dfkd_edge.synthesis.synthesizers import SYNTHESIZERS

VQGAN_BYTES, COUNTED_PX = 855 * 2**20, 224
"""Kept of a decoded picture in mixed precision until the teacher's gradient of its views is there,
counted in amused-256's decoder on a device without memory. The decoder's own gradient takes 990,
when the views are gone."""
DECODED_BYTES = 123 * 2**20  # The most that lives at once of a picture decoded without gradients
MOMENTS = 2  # Of Adam, of each number
VQGAN_WEIGHT_BYTES = 4 * 146_244_675
VQGAN_BYTES_ON_CARD = 392 * 2**20  # Of the same weights where the decoder's are in half precision


@dataclass(frozen=True, slots=True)
class Steps:
    """How many images go together at most, and in how many views each."""

    num_images: int
    num_views: int


def guided_steps(config: SynthesisConfig, num_prompts: int) -> dict[str, Steps]:
    """List the kinds of guided steps of a run whose images are descended to."""
    num = min(config.num_images, SYNTHESIZERS[config.method].shard_size)
    if config.method == "per-image":
        return {"images": Steps(num, config.num_views)}
    views = config.num_refinement_views
    refined = min(num, max(REFINED_TOGETHER // views, 1)) if config.num_refinement_steps else 0
    found = {
        "network": Steps(DRAWS * most_together(config), config.num_descent_views),
        "images": Steps(min(num, DESCENDED_TOGETHER), config.num_descent_views),
        "refinement": Steps(refined, views),
    }
    if not num_steps_of(config, num_prompts):
        del found["network"]
    return found


@dataclass(frozen=True, slots=True)
class GuidedNeeds:
    """Bytes of such steps."""

    weight_bytes: int  # Of teacher and decoder
    of_decoded: int  # A picture's way through the decoder
    of_view: int  # And that of a view of it through the teacher
    of_seen: int = DECODED_BYTES  # Its way through the decoder without gradients

    @classmethod
    def of_vqgan(cls, weight_bytes: int, view_bytes: int, side_px: int) -> "GuidedNeeds":
        """Count amused-256's decoder, which stands for all VQGANs; it grows with the pixels."""
        of_decoded = round(VQGAN_BYTES * (side_px / COUNTED_PX) ** 2)
        return cls(weight_bytes, of_decoded, view_bytes)

    @classmethod
    def of_pixels(cls, weight_bytes: int, view_bytes: int, side_px: int) -> "GuidedNeeds":
        """Count on the meta device; Adam keeps two moments, which are larger than the picture."""
        decoder = PixelDecoder(side_px, "meta")

        def attempt(num: int) -> None:
            shape = num, *decoder.latent_shape
            latent_NL11 = torch.zeros(shape, device="meta", requires_grad=True)
            torch.autograd.grad(decoder.decode(latent_NL11).sum(), latent_NL11)

        of_decoded = measured_need(attempt, "meta").of_image
        moments_bytes = MOMENTS * 4 * decoder.latent_shape[0]
        return cls(weight_bytes, of_decoded + moments_bytes, view_bytes, of_decoded)

    def of(self, steps: Steps, card: Card) -> int:
        """Of steps on so many images, or on as many of them as the card holds."""
        need = Need(self.of_decoded + steps.num_views * self.of_view, 0)
        return card.holding(self.weight_bytes, need, steps.num_images)

    def of_all(self, config: SynthesisConfig, num_prompts: int, card: Card) -> int:
        """The most of what the stage does, decoding without gradients among it."""
        num = min(config.num_images, SYNTHESIZERS[config.method].shard_size)
        seen = card.holding(self.weight_bytes, Need(self.of_seen, 0), num)
        steps = guided_steps(config, num_prompts).values()
        return max(seen, *(self.of(each, card) for each in steps))
