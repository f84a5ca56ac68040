"""Gradients of a batch, summed over its parts and over the ranks that share it.

In bfloat16 the gradient of a weight is rounded to 8 bits once it is summed over images, so it tells
which of them were summed: 4 weights in 100,000 that fall to another side are 0.01 of a logit after
four steps. On a CPU that computes in it, batches are cut into shards whose bounds do not depend on
who works on them; their gradients are added in float64, where the order of so few numbers leaves no
trace. A card's ranks are left alone: their sums are as exact, and faster.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from dfkd_edge.machine.ranks import ALONE, Ranks
from dfkd_edge.networks.mixed_precision import compute_type

NUM_SHARDS = 3
"""Of a batch: up to as many ranks train one student. Each takes a process alone two hundredths of a
step more, so that they are no more, and two ranks have uneven parts."""


def wants_shards(device_type: str, dtype: torch.dtype | None = None) -> bool:
    """Whether gradients are rounded where ranks are few and sums cheap."""
    return device_type == "cpu" and (dtype or compute_type("cpu")) == torch.bfloat16


def shard_size(batch_size: int, num_ranks: int = 1) -> int:
    """Images of a shard; the number of ranks counts only where it is larger than that of shards."""
    size = -(-batch_size // NUM_SHARDS)  # rounded up
    return size if -(-batch_size // size) >= num_ranks else batch_size // num_ranks


class GradientSums:
    """Sums gradients as autograd does, then over ranks."""

    def __init__(self, batch_size: int, ranks: Ranks = ALONE) -> None:
        """Take the size of a batch, and the ranks that share it."""
        self.batch_size, self.ranks = batch_size, ranks
        self.together = batch_size
        """Images whose gradients are summed by themselves, at most."""

    @property
    def mine(self) -> slice:
        """Rows of a batch that this rank works on."""
        return self.ranks.part_of(self.batch_size)

    def clear(self) -> None:
        """Forget what was summed of a batch."""

    def take(self, parameters: Iterable[Tensor]) -> None:
        """Add the gradient of a shard."""

    def close(self, parameters: Iterable[Tensor]) -> None:
        """Leave the gradients of the whole batch with the parameters."""
        self.ranks.add_up_gradients(parameters)


class ShardSums(GradientSums):
    """Sums the gradients of shards, and those of ranks, in float64."""

    def __init__(self, batch_size: int, ranks: Ranks = ALONE) -> None:
        """Cut batches for this number of ranks."""
        super().__init__(batch_size, ranks)
        self.together = shard_size(batch_size, ranks.count)
        self._sums: dict[Tensor, Tensor] = {}

    @property
    def mine(self) -> slice:
        """Rows of whole shards; the last shard of a batch may be smaller."""
        ours = self.ranks.part_of(-(-self.batch_size // self.together))
        return slice(ours.start * self.together, min(ours.stop * self.together, self.batch_size))

    def clear(self) -> None:
        """Forget what was summed of a batch."""
        self._sums.clear()

    def take(self, parameters: Iterable[Tensor]) -> None:
        """Add the gradient of a shard."""
        for parameter in parameters:
            if parameter.grad is None:
                continue
            if parameter in self._sums:
                self._sums[parameter] += parameter.grad
            else:
                self._sums[parameter] = parameter.grad.double()
            parameter.grad = None

    def close(self, parameters: Iterable[Tensor]) -> None:
        """Leave the gradients of the whole batch with the parameters."""
        # every rank has a shard, and shards have gradients of the same weights
        self.ranks.add_up(list(self._sums.values()))
        for parameter, summed in self._sums.items():
            parameter.grad = summed.to(parameter.dtype)
        self.clear()
