import pytest
import torch
from torch import nn

from dfkd_edge.distillation.optim import WeightAverage


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
