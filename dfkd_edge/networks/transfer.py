"""Moving what the host has drawn or read to the device without waiting for it."""

from typing import Any

import torch
from torch import Tensor

UNPINNED = ("cpu", "mps", "meta")  # Their memory is that of the host, or none


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the host behind what the device has queued, and go on at once."""
    if device.type not in UNPINNED:
        tensor = tensor.pin_memory()  # a copy of pageable memory waits for the queue
    return tensor.to(device, non_blocking=True)


def free_bytes(device: torch.device) -> int:
    """Memory of a card that tensors can still take; 0 on the CPU, and where torch cannot tell."""
    module: Any = torch.get_device_module(device)
    if not hasattr(module, "mem_get_info"):
        return 0
    unused = module.memory_reserved(device) - module.memory_allocated(device)
    return int(module.mem_get_info(device)[0] + unused)


def settle_thread(device: torch.device) -> None:
    """Let a new thread work on this card: it would open a context on the first one."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
