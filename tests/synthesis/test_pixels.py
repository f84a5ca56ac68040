import dataclasses

import pytest
import torch

from dfkd_edge.config.file import load_config, settings_of
from dfkd_edge.config.settings import PIXELS, SynthesisConfig
from dfkd_edge.errors import ConfigError
from dfkd_edge.estimates.guided import GuidedNeeds
from dfkd_edge.interfaces import SynthesisBatch
from dfkd_edge.networks.memory import measured_need
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.preflight import needed_weights
from dfkd_edge.seeding import stage_generator
from dfkd_edge.synthesis.amortized import sized_synthesizer
from dfkd_edge.synthesis.decoders import load_latent_decoder
from dfkd_edge.synthesis.pixels import PixelDecoder, sides_of_levels
from dfkd_edge.synthesis.setup import SynthesisSetup
from tests.fixtures.synthesis import MakeSetup

SMALL = SynthesisConfig(decoder=PIXELS, num_images=32, num_descent_steps=16, num_refinement_steps=1)
NUM = 3


@pytest.mark.parametrize("side", [37, 96])
def test_every_resolution_of_an_image_of_any_side_takes_part(side: int) -> None:
    decoder = PixelDecoder(side)
    latent = decoder.start(2, 1, stage_generator(0, "start")).requires_grad_()
    image = decoder.decode(latent)
    assert image.shape == (2, 3, side, side)
    assert 0 < float(image.detach().amin()) < float(image.detach().amax()) < 1
    (gradient,) = torch.autograd.grad(image.square().sum(), latent)
    assert bool((gradient != 0).all())
    assert latent.shape[1] == 3 * sum(level**2 for level in sides_of_levels(side))


def test_a_step_moves_every_level_by_the_same_length() -> None:
    decoder = PixelDecoder(24)
    latent = torch.zeros(1, *decoder.latent_shape)
    gradient = torch.randn(latent.shape, generator=stage_generator(0, "gradient"))
    gradient[:, :30] *= 1e6  # of the coarse levels
    moved = decoder.descend(latent, gradient, 0.1)[0, :, 0, 0]
    lengths = [3 * level**2 for level in sides_of_levels(24)]
    for level in moved.split(lengths):
        assert float(level.square().mean().sqrt()) == pytest.approx(0.1 * decoder.spread, rel=1e-3)


def made(setup: SynthesisSetup, teacher: Teacher) -> tuple[torch.Tensor, torch.Tensor]:
    label = torch.arange(NUM) % len(teacher.head_KD)
    batch = SynthesisBatch(teacher.head_KD[label], label, label * 0, stage_generator(0, "batch"))
    decoder = load_latent_decoder(setup.config, teacher)
    images, embeddings, _ = sized_synthesizer(None, decoder, setup)(batch)
    return images, teacher.logits(embeddings).argmax(1) == label


def test_a_short_descent_draws_what_the_teacher_recognises_and_again_the_same(
    make_setup: MakeSetup, teacher: Teacher
) -> None:
    setup = dataclasses.replace(make_setup(SMALL), teacher=teacher)
    images, is_seen = made(setup, teacher)
    assert bool(is_seen.all())
    assert images.shape == (NUM, 3, teacher.image_size_px, teacher.image_size_px)
    assert float((images.amax(1) - images.amin(1)).mean()) > 0.1  # in colour
    torch.testing.assert_close(made(setup, teacher)[0], images)


def test_pixels_need_no_weights_and_have_no_halved_side() -> None:
    flags = ["synthesis.decoder=pixels", "synthesis.low_resolution_share=0.5"]
    assert needed_weights(load_config(None, settings_of(flags[:1]))) == []
    with pytest.raises(ConfigError, match="all resolutions"):
        load_config(None, settings_of(flags))


def test_a_plan_counts_what_a_step_on_pixels_keeps() -> None:
    decoder = PixelDecoder(64)

    def step(num: int) -> None:
        latent = decoder.start(num, 1, torch.Generator()).requires_grad_()
        adam = torch.optim.Adam([latent])
        latent.grad = torch.autograd.grad(decoder.decode(latent).sum(), latent)[0]
        adam.step()

    told = GuidedNeeds.of_pixels(0, 0, 64).of_decoded
    assert told == pytest.approx(measured_need(step, "cpu").of_image, rel=0.5)
