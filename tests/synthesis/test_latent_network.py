import dataclasses
from pathlib import Path

import pytest
import torch

from dfkd_edge.config.settings import SynthesisConfig
from dfkd_edge.seeding import stage_generator
from dfkd_edge.synthesis.amortized import NetworkSynthesizer, load_amortized
from dfkd_edge.synthesis.decoders import load_latent_decoder
from dfkd_edge.synthesis.latent_network import (
    LatentNetwork,
    NetworkTraining,
    mean_distance_of_draws,
    trained_network,
)
from dfkd_edge.synthesis.setup import SynthesisSetup
from dfkd_edge.synthesis.synthesize import make_candidates
from tests.fixtures.synthesis import MakeSetup

SHORT = SynthesisConfig(
    num_images=32, num_training_steps=4, num_views=1, num_refinement_steps=1, replay_share=0.5
)


def config_with(vqgan_folder: Path, **changes: float) -> SynthesisConfig:
    return dataclasses.replace(SHORT, decoder=str(vqgan_folder), **changes)  # type: ignore[arg-type]


def untrained(setup: SynthesisSetup) -> NetworkTraining:
    decoder = load_latent_decoder(setup.config, setup.teacher)
    network = LatentNetwork(setup.teacher.embed_dim, decoder, stage_generator(0, "network"))
    return NetworkTraining(network, decoder, setup)


def test_the_distance_of_draws_is_none_for_equal_ones_and_one_for_a_right_angle() -> None:
    equal = torch.tensor([1.0, 0.0]).expand(1, 1, 2, 2)
    right = torch.eye(2)[None, None]
    assert float(mean_distance_of_draws(equal)) == pytest.approx(0)
    assert float(mean_distance_of_draws(right)) == pytest.approx(1)


def test_a_training_that_was_stopped_ends_with_the_same_network(
    vqgan_folder: Path, make_setup: MakeSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfkd_edge.synthesis.latent_network.CHECKPOINT_INTERVAL_S", 0)
    whole = make_setup(config_with(vqgan_folder), "whole")
    decoder = load_latent_decoder(whole.config, whole.teacher)
    expected = trained_network(decoder, whole)
    broken = make_setup(config_with(vqgan_folder), "broken")
    loss, calls = NetworkTraining.loss, []

    def stops(*args: object) -> torch.Tensor:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return loss(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(NetworkTraining, "loss", stops)
    with pytest.raises(KeyboardInterrupt):
        trained_network(decoder, broken)
    resumed = trained_network(decoder, broken)
    assert len(calls) == 3 + 2
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0)


def test_following_the_gradient_lowers_the_loss_of_the_same_draw(
    vqgan_folder: Path, make_setup: MakeSetup
) -> None:
    setup = make_setup(config_with(vqgan_folder, diversity_weight=0))
    training = untrained(setup)
    adam = torch.optim.Adam(training.network.parameters(), lr=setup.config.training_rate)
    losses = []
    for _ in range(6):
        loss = training.loss(torch.arange(3), stage_generator(0, "judge"))
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.05, losses


def test_every_prompt_comes_once_a_turn_and_hard_ones_are_replayed(
    vqgan_folder: Path, make_setup: MakeSetup
) -> None:
    setup = make_setup(config_with(vqgan_folder, training_batch_size=12, replay_share=0.4))
    generator, training = stage_generator(0, "x"), untrained(setup)
    training.difficulty_P = torch.tensor([1e-9, 1.0, 1e-9])
    drawn = [training.draw_prompts(step, generator).tolist() for step in range(3)]
    assert sorted(prompt for row in drawn for prompt in row[:2]) == [0, 0, 1, 1, 2, 2]
    assert [row[2] for row in drawn] == [1, 1, 1]


def test_another_teacher_and_decoder_give_a_shard_from_the_trained_network(
    vqgan_folder: Path, make_setup: MakeSetup
) -> None:
    setup = make_setup(config_with(vqgan_folder, num_training_steps=1))
    synthesizer = load_amortized(setup)
    assert isinstance(synthesizer, NetworkSynthesizer)
    shard = make_candidates(0, setup, synthesizer)
    assert shard["images"].shape == (32, 32, 32, 3)
    assert len({image.tobytes() for image in shard["images"]}) == 32
