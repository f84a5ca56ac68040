"""A convolution whose gradient corrupts the memory of a process, computed by a way around it.

oneDNN of torch 2.14 writes beyond a buffer in the backward pass of a strided 1 x 1 convolution of
few input channels in channels-last order: "double free", or a segmentation fault some steps later.
The stems of MobileOne, FastViT and their like have one.

Shape suffixes: N images, C channels, H rows, W columns.
"""

from typing import Any

from torch import Tensor, nn

SAFE_CHANNELS = 16  # From so many on another kernel is taken, which holds


def spare_strided_pointwise(network: nn.Module) -> int:
    """Let such layers take every s-th pixel first, which is the same sum, and then no stride.

    Weights and their names stay. An exported graph is made of a student without this.

    Returns:
        How many layers there were.
    """
    found = [module for module in network.modules() if _is_unsafe(module)]
    for module in found:
        layer: Any = module
        rows, columns = layer.stride

        def thin(
            _module: nn.Module, args: tuple[Tensor, ...], rows: int = rows, columns: int = columns
        ) -> tuple[Tensor, ...]:
            return (args[0][:, :, ::rows, ::columns].contiguous(), *args[1:])

        layer.register_forward_pre_hook(thin)
        layer.stride = (1, 1)
    return len(found)


def _is_unsafe(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and module.padding == (0, 0)
        and module.stride != (1, 1)
        and module.in_channels < SAFE_CHANNELS
    )
