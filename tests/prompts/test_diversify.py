from __future__ import annotations

import numpy as np
import torch

from dfkd_edge.config import PromptConfig
from dfkd_edge.interfaces import StageContext
from dfkd_edge.prompts import diversify_prompts
from dfkd_edge.prompts.contrastive import StyledPrompts
from dfkd_edge.teacher import Teacher

SMALL = PromptConfig(num_styles=6, num_iterations=25)


def test_learnt_styles_differ_more_than_random_ones_and_keep_the_class(
    teacher: Teacher, context: StageContext
) -> None:
    prompts = diversify_prompts(teacher, SMALL, context)
    metrics = context.run_dir.read_metrics()
    assert prompts.embeddings.shape == (18, teacher.embed_dim)
    assert metrics[-1]["style_loss"] < metrics[0]["style_loss"]
    assert prompts.diversity["class_consistency"] == 1.0
    assert prompts.diversity["mean_pairwise_cosine"] < 0.95


def test_base_has_one_style(teacher: Teacher, context: StageContext) -> None:
    prompts = diversify_prompts(teacher, PromptConfig(method="base"), context)
    expected = teacher.embed_texts(["a photo of a dog"])[0].numpy()
    np.testing.assert_allclose(prompts.embeddings[0], expected, atol=1e-5)
    assert prompts.embeddings.shape[0] == len(teacher.classes)


def test_a_complete_stage_is_read_not_repeated(teacher: Teacher, context: StageContext) -> None:
    first = diversify_prompts(teacher, SMALL, context)
    written = len(context.run_dir.read_metrics())
    second = diversify_prompts(teacher, SMALL, context)
    np.testing.assert_array_equal(first.embeddings, second.embeddings)
    assert len(context.run_dir.read_metrics()) == written


def test_the_style_slot_takes_a_free_vector(teacher: Teacher) -> None:
    prompts = StyledPrompts(teacher)
    width = teacher.token_embedding.weight.shape[1]
    style = torch.randn(2, width, generator=torch.Generator().manual_seed(0))
    one, two = prompts.embed_pairs(torch.tensor([0, 0]), style)
    assert float((one * two).sum()) < 0.999
