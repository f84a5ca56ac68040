"""What a step is made of: losses, rate and the average of the weights."""

import contextlib
import copy

import numpy as np
import pytest
import torch
from torch import nn

from dfkd_edge.config.settings import DistillationConfig
from dfkd_edge.distillation.batches import Batches, ImagePool
from dfkd_edge.distillation.optim import WeightAverage, learning_rate_at, make_optimiser
from dfkd_edge.distillation.rows import HardImages
from dfkd_edge.distillation.step import Trainer, feature_distances, soft_target_losses
from dfkd_edge.networks.gradient_sums import GradientSums, ShardSums
from dfkd_edge.networks.memory import Parts
from dfkd_edge.networks.mixed_precision import Precision
from dfkd_edge.networks.students import build_student
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.networks.views import Views
from dfkd_edge.runs.row_stores import ArrayRows


@pytest.mark.parametrize(("num_steps", "num_warmup_steps"), [(100, 10), (40, 10), (1, 0)])
def test_the_rate_warms_up_then_falls_in_a_short_run_too(
    num_steps: int, num_warmup_steps: int
) -> None:
    config = DistillationConfig(num_steps=num_steps, num_warmup_steps=10, learning_rate=1.0)
    rates = [learning_rate_at(step, config) for step in range(num_steps)]
    rising = [(step + 1) / num_warmup_steps for step in range(num_warmup_steps)]
    assert rates[:num_warmup_steps] == pytest.approx(rising)
    assert rates[num_warmup_steps:] == sorted(rates[num_warmup_steps:], reverse=True)
    assert max(rates) == 1.0
    assert rates[-1] < 0.01 or num_steps == 1


def test_losses_vanish_when_both_agree_and_opposite_features_are_at_two() -> None:
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    unit = torch.nn.functional.normalize(logits, dim=1)
    assert soft_target_losses(logits, logits, 3.0).tolist() == pytest.approx([0] * 4, abs=1e-6)
    assert feature_distances(unit, unit).tolist() == pytest.approx([0] * 4, abs=1e-6)
    assert feature_distances(unit, -unit).tolist() == pytest.approx([2] * 4)


def test_soft_target_loss_is_the_kl_of_an_image_times_temperature_squared() -> None:
    student, teacher = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    p, q = (teacher / 2).softmax(1), (student / 2).softmax(1)
    expected = 4 * float((p * (p / q).log()).sum())
    twice = torch.cat((student, student)), torch.cat((teacher, teacher))
    assert soft_target_losses(*twice, 2.0).tolist() == pytest.approx([expected] * 2, rel=1e-5)


def test_a_step_reads_no_number_from_the_device(
    teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The meta device has shapes alone: a step that waited for a number of it would raise."""
    monkeypatch.setattr("dfkd_edge.networks.teacher.mixed_precision", contextlib.nullcontext)
    far, config = copy.copy(teacher), DistillationConfig()
    far.model, far.head_KD = copy.deepcopy(teacher.model).to("meta"), teacher.head_KD.to("meta")
    student = build_student("mini", "random", far.head_KD, far.logit_scale, 32)
    optimiser = make_optimiser(student, config, fused=False)
    precision = Precision("cpu", torch.float32)  # there is no autocast for it
    sums = GradientSums(8)
    trainer = Trainer(student, far, optimiser, precision, config, student.embed_images, sums)
    images = torch.zeros(9, 40, 40, 3, dtype=torch.uint8).numpy()
    device, donors = torch.device("meta"), torch.zeros(4, 2, 3, device="meta")
    batches = Batches(ImagePool(ArrayRows(images), device, 1 << 20), Views(32, 1.0, donors), 0)
    hard = HardImages(9, 0.5, 0, device)
    view = batches.view(batches.prepare(batches.draw(np.arange(8), 0)))
    with torch.no_grad():
        seen = far.embed_images(view)
    parts = Parts("training", 5)
    made = trainer.step(lambda rows: (view[rows], seen[rows]), 8, parts, 8)
    hard.remember(np.arange(8), made.distance_N)
    assert made.loss.is_meta
    with pytest.raises(RuntimeError, match="meta"):
        float(made.loss)


@pytest.mark.parametrize("sums", [GradientSums(6), ShardSums(6)])
def test_gradients_and_figures_of_the_parts_of_a_batch_add_up_to_those_of_the_whole(
    teacher: Teacher, sums: GradientSums
) -> None:
    config = DistillationConfig()
    student = build_student("mini", "random", teacher.head_KD, teacher.logit_scale, 32).eval()
    optimiser = torch.optim.SGD(student.parameters(), lr=0.0)
    precision = Precision("cpu", torch.float32)
    trainer = Trainer(student, teacher, optimiser, precision, config, student.embed_images, sums)
    view = torch.rand((6, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    seen = teacher.embed_images(view)

    fits = 6

    def see(rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        if rows.start and rows.stop - rows.start > fits:  # after gradients of others were added
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return view[rows], seen[rows]

    def taken(size: int) -> tuple[int, list[torch.Tensor]]:
        parts = Parts("training", size)
        made = trainer.step(see, 6, parts, 6)
        gradients = [p.grad.clone() for p in student.parameters() if p.grad is not None]
        return parts.size, [made.numbers, made.distance_N, *gradients]

    _, whole = taken(6)
    size, by_twos = taken(2)
    fits = 1
    halved, by_ones = taken(2)
    assert (size, halved) == (2, 1)
    for parts in (by_twos, by_ones):
        for one, joined in zip(whole, parts, strict=True):
            torch.testing.assert_close(joined, one, rtol=1e-4, atol=1e-5)


def test_the_average_is_what_the_formula_says_and_counters_are_the_last() -> None:
    network = nn.BatchNorm1d(1)
    average = WeightAverage(network, decay=0.2)
    weight, mean = 1.0, 0.0  # where BatchNorm starts
    for step, value in enumerate((3.0, -1.0, 5.0)):
        state = {name: torch.full_like(old, value) for name, old in network.state_dict().items()}
        network.load_state_dict({**state, "num_batches_tracked": torch.tensor(step)})
        average.update(network, step)
        decay = min(0.2, (1 + step) / (10 + step))
        weight = decay * weight + (1 - decay) * value
        mean = decay * mean + (1 - decay) * value
    average.copy_to(network)
    averaged = network.state_dict()
    assert averaged["weight"].item() == pytest.approx(weight)
    assert averaged["running_mean"].item() == pytest.approx(mean)
    assert averaged["num_batches_tracked"].item() == 2


def test_a_decay_of_zero_leaves_the_network_and_keeps_nothing() -> None:
    network = nn.Linear(2, 2)
    before = network.weight.detach().clone()
    average = WeightAverage(network, decay=0.0)
    average.update(network, 0)
    average.copy_to(network)
    assert average.tensors == {}
    assert torch.equal(network.weight, before)
