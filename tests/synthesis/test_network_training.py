import dataclasses
from pathlib import Path

import pytest
import torch

from dfkd_edge.config.settings import SynthesisConfig
from dfkd_edge.runs.checkpoint import SaveClock
from dfkd_edge.seeding import stage_generator
from dfkd_edge.synthesis.amortized import DescentSynthesizer, calmed, load_amortized
from dfkd_edge.synthesis.decoders import load_latent_decoder
from dfkd_edge.synthesis.latent_network import LatentNetwork
from dfkd_edge.synthesis.network_training import (
    DRAWS,
    NetworkTraining,
    mean_distance_of_draws,
    num_steps_of,
    rate_at,
    trained_network,
)
from dfkd_edge.synthesis.setup import SynthesisSetup
from dfkd_edge.synthesis.synthesize import make_candidates
from tests.fixtures.synthesis import MakeSetup

SHORT = SynthesisConfig(
    num_images=32,
    num_training_steps=4,
    num_descent_views=1,
    num_descent_steps=1,
    num_refinement_steps=1,
    replay_share=0.5,
)


def config_with(vqgan_folder: Path, **changes: float) -> SynthesisConfig:
    return dataclasses.replace(SHORT, decoder=str(vqgan_folder), **changes)  # type: ignore[arg-type]


def untrained(setup: SynthesisSetup) -> NetworkTraining:
    decoder = load_latent_decoder(setup.config, setup.teacher)
    target_PD = torch.from_numpy(setup.prompts.embeddings)
    network = LatentNetwork(target_PD, decoder, stage_generator(0, "network"))
    return NetworkTraining(network, decoder, setup)


def test_draws_are_apart_by_what_is_beside_their_prompt() -> None:
    prompt = torch.tensor([[1.0, 0.0, 0.0]])
    closer = torch.tensor([0.8, 0.6, 0.0])
    farther = torch.tensor([0.6, 0.8, 0.0])
    turned = torch.tensor([0.8, 0.0, 0.6])
    along = mean_distance_of_draws(torch.stack((closer, farther))[None, None], prompt)
    beside = mean_distance_of_draws(torch.stack((closer, turned))[None, None], prompt)
    assert float(along) == pytest.approx(0, abs=1e-6)
    assert float(beside) == pytest.approx(1)


def test_steps_follow_from_classes_times_styles_and_a_number_of_steps_goes_before() -> None:
    config = SynthesisConfig(training_passes=3, training_batch_size=8 * DRAWS)
    assert num_steps_of(config, 3_200) == 3 * 3_200 // 8
    assert num_steps_of(config, 7) == 3  # 21 visits, 8 a step
    assert num_steps_of(dataclasses.replace(config, replay_share=0.5), 3_200) == 3 * 3_200 // 4
    assert num_steps_of(dataclasses.replace(config, num_training_steps=5), 3_200) == 5


def test_the_rate_rises_to_its_peak_and_falls_to_nothing() -> None:
    rates = [rate_at(step, 100, 2.0) for step in range(101)]
    assert rates.index(max(rates)) in (4, 5)
    assert max(rates) == pytest.approx(2.0)
    assert rates[0] == pytest.approx(0.4)
    assert rates[100] == pytest.approx(0)


@pytest.mark.slow
def test_a_training_that_was_stopped_ends_with_the_same_network(
    vqgan_folder: Path, make_setup: MakeSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SaveClock, "is_due", True)
    monkeypatch.setattr("dfkd_edge.synthesis.network_training.STEPS_BETWEEN_METRICS", 1)
    whole = make_setup(config_with(vqgan_folder), "whole")
    decoder = load_latent_decoder(whole.config, whole.teacher)
    expected = trained_network(decoder, whole)
    broken = make_setup(config_with(vqgan_folder), "broken")
    descend, calls = NetworkTraining.descend, []

    def stops(*args: object) -> torch.Tensor:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return descend(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(NetworkTraining, "descend", stops)
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
        loss = training.part(torch.arange(3), stage_generator(0, "judge")).loss
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.05, losses


def test_every_prompt_comes_once_a_turn_and_hard_ones_are_replayed(
    vqgan_folder: Path, make_setup: MakeSetup
) -> None:
    setup = make_setup(config_with(vqgan_folder, training_batch_size=3 * DRAWS, replay_share=0.4))
    generator, training = stage_generator(0, "x"), untrained(setup)
    training.difficulty_P = torch.tensor([1e-9, 1.0, 1e-9])
    drawn = [training.draw_prompts(step, generator).tolist() for step in range(3)]
    assert sorted(prompt for row in drawn for prompt in row[:2]) == [0, 0, 1, 1, 2, 2]
    assert [row[2] for row in drawn] == [1, 1, 1]


def gradient_of_a_step(training: NetworkTraining) -> dict[str, torch.Tensor]:
    """Weights' gradients of step 0, which the step itself leaves behind."""
    training.descend(0)
    return {
        name: parameter.grad.clone()
        for name, parameter in training.network.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.slow
def test_a_step_in_parts_is_the_step_at_once_even_where_memory_runs_out(
    vqgan_folder: Path, make_setup: MakeSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    # parts differ by rounding alone, which bfloat16 makes large
    precision = "dfkd_edge.networks.mixed_precision.has_fast_bfloat16"
    monkeypatch.setattr(precision, lambda device_type: False)
    setup = make_setup(
        config_with(vqgan_folder, training_batch_size=4 * DRAWS, num_descent_views=2)
    )
    whole = untrained(setup)
    whole.together = whole.parts.size = 4
    expected = gradient_of_a_step(whole)
    for size in (2, 1):  # alone, a prompt's decoder is run again for its gradient
        parted = untrained(setup)
        parted.together = parted.parts.size = size
        for name, gradient in gradient_of_a_step(parted).items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(parted.difficulty_P, whole.difficulty_P)
    short, part = untrained(setup), NetworkTraining.part
    short.together = short.parts.size = 4

    def runs_out(
        training: NetworkTraining, prompt_P: torch.Tensor, generator: torch.Generator
    ) -> object:
        made = part(training, prompt_P, generator)
        if len(prompt_P) > 2:
            raise torch.OutOfMemoryError("of a card")
        return made

    monkeypatch.setattr(NetworkTraining, "part", runs_out)
    for name, gradient in gradient_of_a_step(short).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)
    assert short.parts.size == 2


def test_before_its_training_a_network_leaves_every_start_where_it_is(
    vqgan_folder: Path, make_setup: MakeSetup
) -> None:
    training = untrained(make_setup(config_with(vqgan_folder)))
    shape = training.decoder.latent_shape
    start = training.decoder.start(2, shape[1], stage_generator(0, "start"))
    moved = training.network(training.target_PD[:2], start)
    torch.testing.assert_close(moved, start)


def test_the_descent_from_the_network_gives_the_same_images_in_parts_of_any_size(
    vqgan_folder: Path, make_setup: MakeSetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    precision = "dfkd_edge.networks.mixed_precision.has_fast_bfloat16"
    monkeypatch.setattr(precision, lambda device_type: False)
    setup = make_setup(config_with(vqgan_folder, num_training_steps=1, num_refinement_steps=0))
    synthesizer = load_amortized(setup)
    assert isinstance(synthesizer, DescentSynthesizer)
    images = []
    for synthesizer.optimiser.parts.size in (32, 7):
        images.append(make_candidates(0, setup, synthesizer)["images"].astype(int))
    assert abs(images[0] - images[1]).max() <= 1  # of 255


def test_another_teacher_and_decoder_give_a_shard_from_the_trained_network(
    vqgan_folder: Path, make_setup: MakeSetup
) -> None:
    setup = make_setup(config_with(vqgan_folder, num_training_steps=1))
    synthesizer = load_amortized(setup)
    assert isinstance(synthesizer, DescentSynthesizer)
    shard = make_candidates(0, setup, synthesizer)
    assert shard["images"].shape == (32, 32, 32, 3)
    assert len({image.tobytes() for image in shard["images"]}) == 32


def test_without_passes_no_network_is_trained_and_random_starts_descend(
    vqgan_folder: Path, make_setup: MakeSetup
) -> None:
    setup = make_setup(config_with(vqgan_folder, num_training_steps=0, num_refinement_steps=0))
    synthesizer = load_amortized(setup)
    assert isinstance(synthesizer, DescentSynthesizer)
    assert synthesizer.network is None
    assert not list(setup.folder.glob("network*"))
    assert len({image.tobytes() for image in make_candidates(0, setup, synthesizer)["images"]}) > 1


def test_calmed_starts_keep_their_mean_and_a_share_of_their_deviation() -> None:
    latent = 3 + 2 * torch.randn((4, 2, 6, 6), generator=stage_generator(0, "start"))
    calm = calmed(latent, 0.25)
    torch.testing.assert_close(calm.mean((0, 2, 3)), latent.mean((0, 2, 3)))
    torch.testing.assert_close(calm.std((0, 2, 3)), 0.25 * latent.std((0, 2, 3)))


@pytest.mark.parametrize(("share", "num_pictures"), [(0.0, 1), (1.0, 32)])
def test_a_descent_without_a_network_begins_as_far_from_flat_pictures_as_is_asked(
    vqgan_folder: Path, make_setup: MakeSetup, share: float, num_pictures: int
) -> None:
    never = {"num_training_steps": 0, "num_descent_steps": 0, "num_refinement_steps": 0}
    setup = make_setup(config_with(vqgan_folder, descent_start=share, **never))
    images = make_candidates(0, setup, load_amortized(setup))["images"]
    assert len({image.tobytes() for image in images}) == num_pictures
