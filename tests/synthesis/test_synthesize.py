from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch

from dfkd_edge.config import SynthesisConfig
from dfkd_edge.interfaces import SynthesisBatch, SynthesizedImages
from dfkd_edge.synthesis.setup import SynthesisSetup
from dfkd_edge.synthesis.synthesize import make_candidates


class PlainColours:
    """Draws grey, and embeds each picture right on its prompt."""

    def __call__(self, batch: SynthesisBatch) -> SynthesizedImages:
        return SynthesizedImages(torch.full((len(batch.label_N), 3, 8, 8), 0.5), batch.target_ND)


def test_balanced_styles_give_every_class_each_style_equally_often(
    make_setup: Callable[..., SynthesisSetup],
) -> None:
    setup = make_setup(SynthesisConfig(num_images=256, balanced_styles=True))
    one = setup.prompts
    prompts = dataclasses.replace(
        one,
        style_labels=("ink", "clay", "neon", "wool"),
        embeddings=one.embeddings.repeat(4, axis=0),
        class_index=np.repeat(one.class_index, 4),
        style_index=np.tile(np.arange(4), 3),
    )
    setup = dataclasses.replace(setup, prompts=prompts)
    shards = [make_candidates(number, setup, PlainColours()) for number in range(2)]
    label = np.concatenate([shard["class_index"] for shard in shards])
    style = np.concatenate([shard["style_index"] for shard in shards])
    counts = np.zeros((3, 4), int)
    np.add.at(counts, (label, style), 1)
    assert counts.sum() == 256
    assert counts.max() - counts.min() <= 1
