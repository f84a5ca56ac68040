"""Operations of a pass."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode


def operations(
    run: Callable[[Tensor], object], shape: tuple[int, ...], device: torch.device | str
) -> int:
    """Count the operations of a pass of one input without gradients; `meta` computes nothing."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run(torch.zeros(1, *shape, device=device))
    return int(counter.get_total_flops())
