import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from dfkd_edge.config.settings import SynthesisConfig
from dfkd_edge.errors import ConfigError
from dfkd_edge.interfaces import SynthesisBatch
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.seeding import stage_generator
from dfkd_edge.synthesis.decoder import LATENT_LIMIT
from dfkd_edge.synthesis.decoders import load_latent_decoder
from dfkd_edge.synthesis.per_image import PerImageSynthesizer

QUICK = SynthesisConfig(
    method="per-image",
    image_size_px=32,
    num_optimisation_steps=8,
    num_views=2,
    low_resolution_share=0.5,
    total_variation_weight=0.1,
    latent_l2_weight=0.1,
)
LIMIT = 16


def per_image(teacher: Teacher, config: SynthesisConfig) -> PerImageSynthesizer:
    made = PerImageSynthesizer(teacher, load_latent_decoder(config, teacher), config)
    made.parts.size = LIMIT
    return made


def batch_of(teacher: Teacher, num: int = 3) -> SynthesisBatch:
    label = torch.arange(num) % len(teacher.head_KD)
    return SynthesisBatch(teacher.head_KD[label], label, label * 0, stage_generator(0, "batch"))


@torch.no_grad()
def test_optimised_images_show_their_class_more_than_start_latents_do(teacher: Teacher) -> None:
    synthesizer = per_image(teacher, QUICK)
    images, embeddings, _ = synthesizer(batch_of(teacher))
    start = synthesizer.decoder.start(3, 4, stage_generator(0, "batch"))
    before = teacher.logits(teacher.embed_images(synthesizer.decoder.decode(start)))
    after = teacher.logits(embeddings)
    assert images.shape == (3, 3, 32, 32)
    assert after.log_softmax(1).trace() > before.log_softmax(1).trace()


def test_latents_stay_where_the_decoder_has_been(teacher: Teacher) -> None:
    config = dataclasses.replace(QUICK, num_optimisation_steps=2, optimisation_rate=50.0)
    latent = per_image(teacher, config).optimise(batch_of(teacher, 1))
    assert float(latent.abs().max()) == pytest.approx(LATENT_LIMIT)


def test_an_odd_side_is_refused(teacher: Teacher) -> None:
    with pytest.raises(ConfigError, match="such as 104"):
        per_image(teacher, dataclasses.replace(QUICK, image_size_px=100))


def test_images_do_not_depend_on_how_many_go_together(
    teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = per_image(teacher, QUICK), per_image(teacher, QUICK)
    gradient = PerImageSynthesizer.gradient

    def on_small_card(made: PerImageSynthesizer, latent: torch.Tensor, *more: Any) -> torch.Tensor:
        if made is parts and len(latent) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return gradient(made, latent, *more)

    monkeypatch.setattr(PerImageSynthesizer, "gradient", on_small_card)
    expected, found = whole(batch_of(teacher)), parts(batch_of(teacher))
    assert parts.parts.size == 1
    torch.testing.assert_close(found.image_NCHW, expected.image_NCHW, atol=0.02, rtol=0)


def test_any_open_clip_teacher_and_vqgan_will_do(vqgan_folder: Path, tiny_teacher: Teacher) -> None:
    config = dataclasses.replace(QUICK, decoder=str(vqgan_folder), num_optimisation_steps=2)
    images, embeddings, _ = per_image(tiny_teacher, config)(batch_of(tiny_teacher))
    assert images.shape == (3, 3, 32, 32)
    assert embeddings.shape == (3, tiny_teacher.embed_dim)
