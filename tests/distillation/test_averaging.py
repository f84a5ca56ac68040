from __future__ import annotations

import pytest
import torch
from torch import nn

from dfkd_edge.distillation.averaging import WeightAverage, move_towards


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


def test_a_network_goes_a_part_of_the_way_back_to_its_start() -> None:
    network, start = torch.nn.BatchNorm1d(1), torch.nn.BatchNorm1d(1)
    state = {"weight": 3.0, "bias": 0.0, "running_mean": 4.0, "running_var": 1.0}
    tensors = {name: torch.tensor([value]) for name, value in state.items()}
    network.load_state_dict({**tensors, "num_batches_tracked": torch.tensor(7)})
    move_towards(network, start, 0.25)
    moved = network.state_dict()
    assert moved["weight"].item() == pytest.approx(2.5)
    assert moved["running_mean"].item() == pytest.approx(3.0)
    assert moved["num_batches_tracked"].item() == 7
    assert start.weight.item() == 1.0
