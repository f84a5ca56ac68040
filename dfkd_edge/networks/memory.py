"""Batches that fit: the activations that one more image keeps for the backward pass.

The answer depends on shapes alone, not on what happens to be free, so a run that is split or
resumed works in the same batches and makes the same images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from dfkd_edge.interfaces import SynthesisBatch

WORKING_FACTOR = 2
"""Workspaces and gradients need about as much again as what is kept (ours)."""


def kept_bytes(loss_of: Callable[[int], Tensor], num_images: int) -> int:
    """Bytes that the graph of a loss keeps, shared storage counted once."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
        graph = loss_of(num_images)  # alive while counted: a freed address could come twice
    del graph
    return sum(kept.values())


def images_that_fit(loss_of: Callable[[int], Tensor], memory_mib: int, limit: int) -> int:
    """Largest batch within a budget.

    Args:
        loss_of: makes the loss of so many images.
        memory_mib: the budget.
        limit: never more than this.

    Returns:
        1 to `limit`.
    """
    an_image = max(kept_bytes(loss_of, 2) - kept_bytes(loss_of, 1), 1)  # weights cancel out
    return max(1, min(limit, memory_mib * 2**20 // (WORKING_FACTOR * an_image)))


def parts_of(batch: SynthesisBatch, num_together: int) -> Iterator[SynthesisBatch]:
    """Split a batch; the parts share its generator, so they must be used in order."""
    num = len(batch.label_N)
    for start in range(0, num, num_together):
        size = min(num_together, num - start)
        yield batch.of_rows(slice(start, start + size), size / num)
