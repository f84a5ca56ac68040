"""BatchNorm with frozen statistics, folded into the convolution before it.

It is then one affine map a channel, and eager torch reads and writes the whole image for it, in
both directions. The folded weights are computed at each pass from both modules' own, so that these
keep their places, learn as they would, and are saved as they are. Only where a CPU computes in
float32: bfloat16 rounds in other places, and a card hides such passes behind its arithmetic.

Shape suffixes: N images, O output channels, C input channels, H rows, W columns.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame, conv2d_same
from torch import Tensor, nn

from dfkd_edge.networks.mixed_precision import compute_type

Embed = Callable[[Tensor], Tensor]
Pair = tuple[nn.Conv2d, nn.BatchNorm2d]
LARGEST_ERROR = 1e-3  # Of a unit embedding's numbers; the order of sums alone gives 1e-6
CONVOLUTIONS = nn.Conv2d, Conv2dSame  # No other subclass: its own forward may do more


def fold_norms(network: nn.Module, embed: Embed) -> Callable[[], None]:
    """Fold the norms of a network in evaluation mode, if that does not change what it sees.

    Args:
        network: whose modules are changed.
        embed: runs it on images of any size in [0, 1] and returns unit embeddings.

    Returns:
        What takes the folding back.
    """
    device_type = next(network.parameters()).device.type
    has_norms = any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    if device_type != "cpu" or compute_type(device_type) != torch.float32 or not has_norms:
        return lambda: None
    # as many pixels as tell one image from another; the global generator stays as it is
    image_NCHW = torch.rand((2, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected_ND, pairs = _watched(network, lambda: embed(image_NCHW))
        for convolution, norm in pairs:
            forward = partial(_convolve, convolution, norm)
            convolution.forward = forward  # type: ignore[method-assign]
            norm.forward = partial(_rest, norm)  # type: ignore[method-assign]
        error = (embed(image_NCHW) - expected_ND).abs().max()

    def undo() -> None:
        for module in (module for pair in pairs for module in pair):
            del module.forward

    if error <= LARGEST_ERROR:
        return undo
    undo()  # something else reads what a convolution gave
    return lambda: None


@contextlib.contextmanager
def norms_folded(network: nn.Module, embed: Embed) -> Iterator[None]:
    """Fold the norms of a network until the end, as `fold_norms`."""
    undo = fold_norms(network, embed)
    try:
        yield
    finally:
        undo()


def _watched(network: nn.Module, look: Callable[[], Tensor]) -> tuple[Tensor, list[Pair]]:
    """Find convolutions whose output a norm takes; returns what was seen, too."""
    made: dict[int, tuple[Tensor, nn.Conv2d]] = {}  # held: else another tensor gets the number
    pairs: dict[nn.Conv2d, nn.BatchNorm2d] = {}

    def note(module: nn.Conv2d, _args: object, output_NOHW: Tensor) -> None:
        made[id(output_NOHW)] = output_NOHW, module

    def match(norm: nn.BatchNorm2d, args: tuple[Tensor]) -> None:
        _, convolution = made.get(id(args[0]), (None, None))
        if convolution is not None and norm.affine and norm.track_running_stats:
            pairs[convolution] = norm

    handles = [
        module.register_forward_hook(note)
        for module in network.modules()
        if type(module) in CONVOLUTIONS
    ]
    handles += [
        module.register_forward_pre_hook(match)
        for module in network.modules()
        if isinstance(module, nn.BatchNorm2d)
    ]
    try:
        return look(), list(pairs.items())
    finally:
        for handle in handles:
            handle.remove()


def _convolve(convolution: nn.Conv2d, norm: Any, image_NCHW: Tensor) -> Tensor:
    scale_O = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift_O = norm.bias - norm.running_mean * scale_O
    if convolution.bias is not None:
        shift_O = shift_O + convolution.bias * scale_O
    convolve = conv2d_same if type(convolution) is Conv2dSame else F.conv2d
    image_NOHW: Tensor = convolve(
        image_NCHW,
        convolution.weight * scale_O[:, None, None, None],
        shift_O,
        convolution.stride,
        convolution.padding,
        convolution.dilation,
        convolution.groups,
    )
    return image_NOHW


def _rest(norm: Any, image_NOHW: Tensor) -> Tensor:
    """Do what a norm of timm does besides: its activation."""
    if hasattr(norm, "act"):
        activated_NOHW: Tensor = norm.act(norm.drop(image_NOHW))
        return activated_NOHW
    return image_NOHW
