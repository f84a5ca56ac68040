"""The moving average of the student's weights, which ships where `ema_decay` is above 0."""

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of every float of a network, BatchNorm's statistics included."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Start at the network's weights; a decay of 0 averages nothing."""
        self._decay = decay
        state = network.state_dict() if decay else {}
        self.tensors: dict[str, Tensor] = {
            f"average/{name}": value.detach().clone() for name, value in state.items()
        }
        """For the checkpoint."""

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move the average towards the network's weights after a step.

        The decay is at most (1 + step) / (10 + step), so that the start is soon forgotten
        (TensorFlow's ExponentialMovingAverage).
        """
        if not self._decay:
            return
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            average = self.tensors[f"average/{name}"]
            if average.is_floating_point():
                average.lerp_(value, 1 - decay)
            else:  # BatchNorm's counter of batches
                average.copy_(value)

    def copy_to(self, network: nn.Module) -> None:
        """Give the network the averaged weights, where there are some."""
        state = {name.removeprefix("average/"): value for name, value in self.tensors.items()}
        if state:
            network.load_state_dict(state)
