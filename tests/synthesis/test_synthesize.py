from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Iterator
from typing import get_args

import numpy as np
import pytest
import torch

from dfkd_edge.config.settings import PromptConfig, SynthesisConfig, SynthesisMethod
from dfkd_edge.errors import ArtifactError
from dfkd_edge.interfaces import SynthesisBatch, SynthesizedImages, WorkShare
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.prompts import diversify_prompts
from dfkd_edge.runs.context import StageContext
from dfkd_edge.runs.surrogates import write_shard
from dfkd_edge.synthesis.amortized import DECODING_SHARE, SAMPLING_SHARE, PriorSynthesizer, Refiner
from dfkd_edge.synthesis.decoder import load_decoder
from dfkd_edge.synthesis.setup import SynthesisSetup
from dfkd_edge.synthesis.synthesize import (
    await_shards,
    make_candidates,
    make_shards,
    synthesis_setup,
)
from dfkd_edge.synthesis.synthesizers import SYNTHESIZERS
from tests.fixtures.synthesis import MakeSetup


class PlainColours:
    """Draws grey, and embeds each picture right on its prompt."""

    def __call__(self, batch: SynthesisBatch) -> SynthesizedImages:
        return SynthesizedImages(torch.full((len(batch.label_N), 3, 8, 8), 0.5), batch.target_ND)


def test_balanced_styles_give_every_class_each_style_equally_often(
    make_setup: MakeSetup,
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


class ByHalves:
    """Draws grey, and says so after each half of the work, and once too often."""

    def __call__(self, batch: SynthesisBatch) -> SynthesizedImages:
        for _ in range(3):
            batch.tell(0.5)
        return PlainColours()(batch)


class Announced:
    """Keeps what the bars of stages are given."""

    def __init__(self) -> None:
        self.bars: list[tuple[int, int]] = []
        self.counts: list[int] = []
        self.notes: list[str] = []

    @property
    def count(self) -> int:
        return sum(self.counts)

    @contextlib.contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Iterator[Announced]:
        self.bars.append((total, done))
        yield self

    def advance(self, count: int = 1, note: str = "") -> None:
        self.counts.append(count)
        self.notes.append(note)

    def note(self, text: str) -> None:
        assert text


def announced_setup(make_setup: MakeSetup, num_images: int) -> tuple[SynthesisSetup, Announced]:
    setup, announced = make_setup(SynthesisConfig(num_images=num_images)), Announced()
    context = dataclasses.replace(setup.context, reporter=announced)
    return dataclasses.replace(setup, context=context), announced


def test_a_share_counts_its_own_images_and_those_that_are_there(
    make_setup: MakeSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SYNTHESIZERS["amortized"], "load", lambda _: PlainColours())
    setup, announced = announced_setup(make_setup, num_images=600)
    write_shard(setup.folder, 0, setup.key, make_candidates(0, setup, PlainColours()))
    make_shards(setup, WorkShare(0, 2))  # shards 0, 2 and 4, the last one of 88
    assert (announced.bars, announced.count) == ([(344, 128)], 216)


def test_the_bar_moves_within_a_shard_and_ends_where_it_should(
    make_setup: MakeSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SYNTHESIZERS["amortized"], "load", lambda _: ByHalves())
    setup, announced = announced_setup(make_setup, num_images=130)
    make_shards(setup, WorkShare())  # of 128 and 2
    assert announced.counts == [64, 63, 1, 1, 1]
    recognised = announced.notes[2]
    assert recognised.startswith("teacher recognises ")
    assert announced.notes[:4] == ["", "", recognised, recognised]


def test_the_prior_tells_of_its_steps_and_makes_the_same_images_whoever_listens(
    teacher: Teacher, context: StageContext
) -> None:
    config = SynthesisConfig(num_images=32, num_sampling_steps=2, num_refinement_steps=1)
    prompts = diversify_prompts(teacher, PromptConfig(method="base"), context)
    setup = synthesis_setup(prompts, teacher, config, context)
    decoder = load_decoder()
    synthesizer = PriorSynthesizer(decoder, config, Refiner(teacher, decoder, config))
    shares: list[float] = []
    heard = make_candidates(0, setup, synthesizer, shares.append)
    unheard = make_candidates(0, setup, synthesizer)
    assert shares[:3] == pytest.approx([SAMPLING_SHARE / 2] * 2 + [DECODING_SHARE / 2])
    assert len(shares) > 3
    assert sum(shares) == pytest.approx(1)
    np.testing.assert_array_equal(heard["images"], unheard["images"])


def test_shards_that_the_file_system_is_slow_to_show_are_awaited(
    make_setup: MakeSetup,
) -> None:
    setup, announced = announced_setup(make_setup, num_images=512)
    made = make_candidates(0, setup, PlainColours())
    write_shard(setup.folder, 0, setup.key, made)
    write_shard(setup.folder, 1, "other settings", made)
    other = threading.Timer(0.01, write_shard, (setup.folder, 1, setup.key, made))
    other.start()
    await_shards(setup, [0, 1], patience_s=60)
    other.join()
    assert (announced.bars, announced.count) == ([(2, 1)], 1)
    await_shards(setup, [0, 1], patience_s=0)
    assert len(announced.bars) == 1


def test_shards_that_are_never_seen_are_not_awaited_for_ever(
    make_setup: MakeSetup,
) -> None:
    setup, _ = announced_setup(make_setup, num_images=512)
    write_shard(setup.folder, 0, setup.key, make_candidates(0, setup, PlainColours()))
    with pytest.raises(ArtifactError, match=r"2 shards missing \(.*shard-00002.*the same command"):
        await_shards(setup, [0, 2, 3], patience_s=0)


def test_the_settings_name_the_synthesizers_of_the_table() -> None:
    assert get_args(SynthesisMethod) == tuple(SYNTHESIZERS)
    assert next(iter(SYNTHESIZERS)) == SynthesisConfig().method  # as the help of --synthesis says
