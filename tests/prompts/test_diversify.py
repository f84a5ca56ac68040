import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dfkd_edge.config.settings import PromptConfig, PromptMethod
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.prompts import diversify_prompts
from dfkd_edge.prompts.diversify import diversity
from dfkd_edge.prompts.style_names import STYLE_NAMES
from dfkd_edge.prompts.vocabulary import NEUTRAL
from dfkd_edge.runs.context import StageContext

SMALL = PromptConfig(num_styles=6, num_iterations=25)


def test_learnt_styles_differ_keep_the_class_and_are_read_once_they_are_there(
    teacher: Teacher, context: StageContext
) -> None:
    prompts = diversify_prompts(teacher, SMALL, context)
    metrics = context.run_dir.read_metrics()
    assert prompts.embeddings.shape == (18, teacher.embed_dim)
    assert metrics[-1]["style_loss"] < metrics[0]["style_loss"]
    assert prompts.diversity.class_consistency == 1.0
    assert prompts.diversity.mean_pairwise_cosine < 0.95
    again = diversify_prompts(teacher, SMALL, context)
    np.testing.assert_array_equal(prompts.embeddings, again.embeddings)
    assert context.run_dir.read_metrics() == metrics


def test_base_has_one_style(teacher: Teacher, context: StageContext) -> None:
    prompts = diversify_prompts(teacher, PromptConfig(method="base"), context)
    expected = teacher.embed_texts(["a photo of a dog"])[0].numpy()
    np.testing.assert_allclose(prompts.embeddings[0], expected, atol=1e-5)
    assert prompts.embeddings.shape[0] == len(teacher.classes)


@pytest.mark.parametrize("method", ["mix", "random", "contrastive"])
def test_styled_prompts_follow_from_the_seed_and_are_labelled(
    method: PromptMethod, teacher: Teacher, context: StageContext
) -> None:
    config = PromptConfig(method=method, num_styles=3, num_iterations=2)
    prompts = diversify_prompts(teacher, config, context)
    context.run_dir.restart()
    again = diversify_prompts(teacher, config, context)
    context.run_dir.restart()
    other = diversify_prompts(teacher, config, dataclasses.replace(context, seed=1))
    np.testing.assert_array_equal(prompts.embeddings, again.embeddings)
    assert np.abs(prompts.embeddings - other.embeddings).max() > 1e-3
    assert prompts.embeddings.shape == (9, teacher.embed_dim)
    assert len(set(prompts.style_labels)) == 3
    assert set(prompts.style_labels) <= set(NEUTRAL if method == "mix" else STYLE_NAMES)


def test_diversity_is_that_of_the_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    embedding_KSD = F.normalize(torch.randn(4, 3, 8, generator=generator), dim=2)
    measured = diversity(embedding_KSD, embedding_KSD[:, 0])
    pairs = [e[i] @ e[j] for e in embedding_KSD for i, j in ((0, 1), (0, 2), (1, 2))]
    assert measured.mean_pairwise_cosine == pytest.approx(float(sum(pairs)) / len(pairs))
    assert 1 < measured.effective_rank <= 8
    assert diversity(embedding_KSD[:, :1], embedding_KSD[:, 0]).class_consistency == 1.0
