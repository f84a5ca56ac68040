"""How many images fit into memory while gradients flow.

The answer depends on shapes alone, not on what happens to be free, so a run that is split or
resumed works in the same batches and makes the same images.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dfkd_edge.interfaces import SynthesisBatch, SynthesizedImages, Synthesizer

WORKING_FACTOR = 2
"""Workspaces and gradients take about as much again as what is kept for them (ours)."""


def kept_bytes(loss_of: Callable[[int], Tensor], num_images: int) -> int:
    """Bytes that the graph of a loss keeps for the backward pass, shared storage counted once."""
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
    """Largest number of images, 1 to `limit`, whose loss fits into `memory_mib`."""
    an_image = max(kept_bytes(loss_of, 2) - kept_bytes(loss_of, 1), 1)  # weights cancel out
    return max(1, min(limit, memory_mib * 2**20 // (WORKING_FACTOR * an_image)))


def made_in_parts(batch: SynthesisBatch, together: int, make: Synthesizer) -> SynthesizedImages:
    """Make the images of a batch, so many at a time."""
    num, made = len(batch.label_N), []
    for start in range(0, num, together):
        size = min(together, num - start)
        made.append(make(batch.of_rows(slice(start, start + size), size / num)))
    images, embeddings, _ = zip(*made, strict=True)
    return SynthesizedImages(torch.cat(images), torch.cat(embeddings))
