"""The moving average of the student's weights, which can be what ships."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of every float of a network, statistics included."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Start at the network's weights.

        Args:
            network: is averaged.
            decay: weight of the past once there is enough of it; 0 averages nothing.
        """
        self._decay = decay
        state = network.state_dict() if decay else {}
        self.tensors: dict[str, Tensor] = {
            f"average/{name}": value.detach().clone() for name, value in state.items()
        }
        """What a checkpoint keeps."""

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take the weights after a step in.

        The first steps weigh more, (1 + step) / (10 + step), so that the start is soon forgotten
        (TensorFlow's ExponentialMovingAverage).
        """
        if not self._decay:
            return
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            average = self.tensors[f"average/{name}"]
            if average.is_floating_point():
                average.lerp_(value, 1 - decay)
            else:  # counters
                average.copy_(value)

    def copy_to(self, network: nn.Module) -> None:
        """Give the network the averaged weights."""
        state = {name.removeprefix("average/"): value for name, value in self.tensors.items()}
        if state:
            network.load_state_dict(state)
