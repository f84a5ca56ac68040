"""Mixed precision where it pays: bfloat16 on accelerators and on CPUs that compute in it.

A CPU without bfloat16 instructions emulates them: a convolution then takes about fifty times longer
than in float32, so such CPUs stay in float32. One that has them lacks kernels for the gradients of
depthwise convolutions: those of the default student then take two thirds of a step.
"""

import contextlib
from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def has_fast_bfloat16(device_type: str) -> bool:
    """Whether this kind of device computes in bfloat16 without emulating it."""
    if device_type == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return device_type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


def mixed_precision(device_type: str) -> torch.autocast:
    """Autocast to bfloat16; does nothing where the device would emulate it."""
    return torch.autocast(device_type, torch.bfloat16, enabled=has_fast_bfloat16(device_type))


def _convolve_in_float32(convolution: nn.Conv2d, image_NCHW: Tensor) -> Tensor:
    with torch.autocast(image_NCHW.device.type, enabled=False):
        return F.conv2d(
            image_NCHW.float(),
            convolution.weight,
            convolution.bias,
            convolution.stride,
            convolution.padding,
            convolution.dilation,
            convolution.groups,
        )


@contextlib.contextmanager
def depthwise_in_float32(network: nn.Module, device_type: str) -> Iterator[None]:
    """Keep the depthwise convolutions of a network out of autocast while it trains on a CPU."""
    is_slow = device_type == "cpu" and has_fast_bfloat16(device_type)
    depthwise = [
        module
        for module in network.modules()
        # not of timm's subclasses, whose own forward pads
        if is_slow and type(module) is nn.Conv2d and module.groups == module.in_channels > 1
    ]
    for module in depthwise:
        module.forward = partial(_convolve_in_float32, module)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in depthwise:
            del module.forward
