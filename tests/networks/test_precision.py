"""Training in float16 for real: a CPU computes in it too, and scales gradients as a card does."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dfkd_edge.networks.mixed_precision import Precision, in_compute_type, mixed_precision
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.runs.checkpoint import load_checkpoint, save_checkpoint

IMAGE = torch.rand((4, 3, 12, 12), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 4))


def _adam(network: nn.Module, precision: Precision) -> torch.optim.AdamW:
    fused = precision.wants_fused or None
    return torch.optim.AdamW(network.parameters(), lr=1e-2, fused=fused)


def _loss(network: nn.Module, precision: Precision) -> Tensor:
    with precision.autocast():
        value: Tensor = network(IMAGE)
    assert value.dtype == precision.dtype
    return (value.float() - 1).square().mean()


def _scale(precision: Precision) -> float:
    return float(precision.tensors()["scale/scale"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_loss_falls_in_float16_as_it_does_in_float32(
    network: nn.Module, dtype: torch.dtype
) -> None:
    precision = Precision("cpu", dtype)
    optimiser = _adam(network, precision)
    losses = []
    for _ in range(30):
        loss = _loss(network, precision)
        precision.descend(loss, optimiser, max_norm=5.0)
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    assert bool(precision.tensors()) is (dtype == torch.float16)


def test_a_step_that_overflows_is_left_out_and_halves_the_scale(network: nn.Module) -> None:
    precision = Precision("cpu", torch.float16)
    optimiser, before = _adam(network, precision), copy.deepcopy(network.state_dict())
    start = _scale(precision)
    precision.descend(_loss(network, precision) * 1e6, optimiser, max_norm=5.0)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert _scale(precision) == start / 2
    precision.descend(_loss(network, precision), optimiser, max_norm=5.0)
    assert not torch.equal(network.state_dict()["0.weight"], before["0.weight"])
    assert _scale(precision) == start / 2


def test_a_training_goes_on_bit_for_bit_with_its_scale(network: nn.Module, tmp_path: Path) -> None:
    ends = []
    for stops_at in (0, 1, 3):  # the first step overflows: its checkpoint has moments all the same
        trained, precision = copy.deepcopy(network), Precision("cpu", torch.float16)
        optimiser = _adam(trained, precision)
        for step in range(5):
            if step and step == stops_at:
                save_checkpoint(
                    tmp_path / "c", "key", step, trained, optimiser, precision.tensors()
                )
                trained, precision = copy.deepcopy(network), Precision("cpu", torch.float16)
                optimiser, more = _adam(trained, precision), precision.tensors()
                assert load_checkpoint(tmp_path / "c", "key", trained, optimiser, more) == step
                precision.restore(more)
            factor = 1e6 if step == 0 else 1.0
            precision.descend(_loss(trained, precision) * factor, optimiser)
        ends.append((trained.state_dict(), _scale(precision)))
    assert ends[0][1] == ends[1][1] == ends[2][1] < 2.0**16
    for state, _ in ends[1:]:
        assert all(torch.equal(value, ends[0][0][name]) for name, value in state.items())


def test_gradients_of_pictures_are_as_in_float32_and_zero_where_they_overflow(
    network: nn.Module,
) -> None:
    image = IMAGE.clone().requires_grad_()
    whole, half = Precision("cpu", torch.float32), Precision("cpu", torch.float16)

    def gradient(precision: Precision, factor: float) -> Tensor:
        with precision.autocast():
            value: Tensor = network(image)
        return precision.gradient(value.float().square().mean() * factor, image)

    # 1e-6: below float16's smallest number without a scale
    exact, scaled = gradient(whole, 1e-3), gradient(half, 1e-3)
    torch.testing.assert_close(scaled, exact, rtol=0.05, atol=0.05 * float(exact.abs().max()))
    assert not gradient(half, 1e9).any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["convolutional", "transformer"])
def test_a_frozen_tower_in_the_compute_type_sees_what_it_sees_under_autocast(
    kind: str, dtype: torch.dtype, teacher: Teacher, tiny_teacher: Teacher
) -> None:
    tower = {"convolutional": teacher, "transformer": tiny_teacher}[kind].model.visual
    assert isinstance(tower, nn.Module)
    lowered = in_compute_type(copy.deepcopy(tower), dtype)
    assert {p.dtype for p in lowered.parameters() if p.ndim > 1} == {dtype}
    image = torch.rand((2, 3, 32, 32), generator=torch.Generator().manual_seed(1))
    with mixed_precision("cpu", dtype), torch.no_grad():
        expected, given = tower(image).float(), lowered(image).float()
    assert float(torch.cosine_similarity(expected, given).min()) > 0.999


@pytest.mark.parametrize(
    ("before", "after"), [(torch.float32, torch.float16), (torch.float16, torch.float32)]
)
def test_a_training_goes_on_in_another_type_than_it_began_in(
    network: nn.Module, tmp_path: Path, before: torch.dtype, after: torch.dtype
) -> None:
    first = Precision("cpu", before)
    optimiser = _adam(network, first)
    first.descend(_loss(network, first), optimiser)
    save_checkpoint(tmp_path / "c", "key", 1, network, optimiser, first.tensors())
    resumed, second = copy.deepcopy(network), Precision("cpu", after)
    for value in resumed.state_dict().values():
        value.zero_()
    optimiser, more = _adam(resumed, second), second.tensors()
    assert load_checkpoint(tmp_path / "c", "key", resumed, optimiser, more) == 1
    second.restore(more)
    assert torch.equal(resumed.state_dict()["0.weight"], network.state_dict()["0.weight"])
    second.descend(_loss(resumed, second), optimiser)
    assert not torch.equal(resumed.state_dict()["0.weight"], network.state_dict()["0.weight"])


def test_a_rank_that_scaled_no_loss_takes_the_step_of_the_others(network: nn.Module) -> None:
    precision = Precision("cpu", torch.float16)
    optimiser, before = _adam(network, precision), network.state_dict()["0.weight"].clone()
    for weight in network.parameters():
        weight.grad = torch.full_like(weight, 65536.0)  # summed by others, at the first scale
    precision.step(optimiser)
    assert not torch.equal(network.state_dict()["0.weight"], before)
