"""Moving what the host has drawn or read to the device without waiting for it."""

import torch
from torch import Tensor


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the host behind what the device has queued, and go on at once."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()  # a copy of pageable memory waits for the queue
    return tensor.to(device, non_blocking=True)


def free_bytes(device: torch.device) -> int:
    """Free memory of a card; 0 where the device does not tell."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
