from typing import Any

import numpy as np
import pytest
import torch

from dfkd_edge.config.settings import PromptConfig, SynthesisConfig
from dfkd_edge.interfaces import SynthesisBatch
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.prompts import diversify_prompts
from dfkd_edge.runs.context import StageContext
from dfkd_edge.runs.surrogates import shard_path
from dfkd_edge.seeding import stage_generator
from dfkd_edge.synthesis.amortized import Refiner, offset_conditions
from dfkd_edge.synthesis.decoder import load_decoder
from dfkd_edge.synthesis.setup import STAGE
from dfkd_edge.synthesis.synthesize import synthesize
from dfkd_edge.synthesis.synthesizers import SYNTHESIZERS
from tests.fixtures.typed import whole

SMALL = SynthesisConfig(num_images=32, num_sampling_steps=2, num_refinement_steps=1)
BASE = PromptConfig(method="base")


def test_conditions_stay_unit_and_near_their_prompt() -> None:
    target = torch.nn.functional.normalize(
        torch.randn(50, 64, generator=torch.Generator().manual_seed(0)), dim=1
    )
    moved = offset_conditions(target, 0.5, stage_generator(0, "x"))
    torch.testing.assert_close(moved.norm(dim=1), torch.ones(50))
    assert float((moved * target).sum(1).min()) > 0.8
    torch.testing.assert_close(offset_conditions(target, 0.0, stage_generator(0, "x")), target)


def test_refinement_raises_the_asked_class(teacher: Teacher) -> None:
    decoder = load_decoder()
    generator = stage_generator(0, "x")
    label = torch.arange(3)
    batch = SynthesisBatch(teacher.head_KD[label], label, label * 0, generator)
    latent = torch.randn((3, *decoder.latent_shape), generator=generator)
    config = SynthesisConfig(num_refinement_steps=4)
    refined = Refiner(teacher, decoder, config).refined(latent, batch)
    with torch.no_grad():
        before, after = (
            teacher.logits(teacher.embed_images(decoder.decode(x))).log_softmax(1).diagonal()
            for x in (latent, refined)
        )
    assert float(after.mean()) > float(before.mean())


def test_missed_images_are_refined_further_where_no_drawing_takes_their_place(
    teacher: Teacher,
) -> None:
    def num_steps(**settings: Any) -> int:
        return Refiner(teacher, load_decoder(), SynthesisConfig(**settings)).num_steps

    assert num_steps(exemplar_share=0) > num_steps() > 0
    assert num_steps(exemplar_share=0, image_size_px=64) == num_steps()  # not the embedded prior
    assert num_steps(exemplar_share=0, num_refinement_steps=0) == 0


def test_surrogates_show_their_class_and_differ_and_a_lost_shard_comes_back_the_same(
    teacher: Teacher, context: StageContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SYNTHESIZERS["amortized"], "shard_size", 16)
    prompts = diversify_prompts(teacher, BASE, context)
    surrogates = synthesize(prompts, teacher, SMALL, context)
    assert surrogates.summary.acceptance > 0.5  # chance is a third
    assert surrogates.summary.mean_distance_within_class > 0.1
    assert surrogates.images.dtype == np.uint8
    assert float(whole(surrogates.images).std()) > 20
    shard_path(context.run_dir.stage_dir(STAGE), 1).unlink()
    again = synthesize(prompts, teacher, SMALL, context)
    np.testing.assert_array_equal(whole(surrogates.images), whole(again.images))
