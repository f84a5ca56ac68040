"""AdamW, its learning-rate schedule (warm-up, half cosine), and what is shipped of the weights."""

import math

import torch
from torch import Tensor, nn

from dfkd_edge.artifacts import SurrogateSummary
from dfkd_edge.config.settings import DistillationConfig
from dfkd_edge.runs.key import student_content

BACK = 0.3
"""Of the way back to its start that a student goes whose classes have no drawings of their own: it
then forgets less of photographs and knows the classes as well (ours; examples/measurements)."""


def make_optimiser(
    student: nn.Module, config: DistillationConfig, *, fused: bool
) -> torch.optim.AdamW:
    """Decay weights, not biases and norms."""
    parameters = [p for p in student.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=config.peak_learning_rate,
        fused=fused or None,
    )


def learning_rate_at(step: int, config: DistillationConfig) -> float:
    """Rate of a step: linear warm-up to the peak, then a half cosine towards zero."""
    num_warmup_steps = min(config.num_warmup_steps, config.num_steps // 4)  # short runs decay too
    if step < num_warmup_steps:
        return config.peak_learning_rate * (step + 1) / num_warmup_steps
    angle = math.pi * (step - num_warmup_steps) / (config.num_steps - num_warmup_steps)
    return config.peak_learning_rate * 0.5 * (1 + math.cos(angle))


class WeightAverage:
    """Exponential moving average of every float of a network, BatchNorm's statistics included.

    It is what ships where `ema_decay` is above 0.
    """

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
        """Fold the weights after one step into the running average."""
        if not self._decay:
            return
        # as TensorFlow's ExponentialMovingAverage: the random start is soon forgotten
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            average = self.tensors[f"average/{name}"]
            if average.is_floating_point():
                average.lerp_(value, 1 - decay)
            else:  # BatchNorm's counter of batches
                average.copy_(value)

    def copy_to(self, network: nn.Module) -> None:
        """Load the averaged weights into the network, if there is an average."""
        state = {name.removeprefix("average/"): value for name, value in self.tensors.items()}
        if state:
            network.load_state_dict(state)


def share_back(config: DistillationConfig, summary: SurrogateSummary) -> float:
    """How far a student is to go back: only to start weights that see as the teacher does.

    Classes count whose images show what only looks like them, without real pictures beside.
    """
    classes = summary.classes
    if not classes or summary.few_shot or not student_content(config):
        return 0.0
    return BACK * sum(each.num_alike > 0 for each in classes) / len(classes)


@torch.no_grad()
def go_back(network: nn.Module, start: nn.Module, share: float) -> None:
    """Average weights with those of the start (WiSE-FT: Wortsman et al., CVPR 2022)."""
    for value, first in zip(network.parameters(), start.parameters(), strict=True):
        value.lerp_(first.to(value), share)
