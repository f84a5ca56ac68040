"""Gradients of a batch that ranks share on CPUs, rounded to bfloat16 once: as one process does.

A CPU that computes in bfloat16 rounds the gradient of a weight when it has summed it over images.
Rounded in every rank, the sum would tell how many there are: 0.03 of a logit after four steps. A
card's ranks are left alone: their sums are as exact, and faster.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from dfkd_edge.machine.ranks import Ranks

Embed = Callable[[Tensor], Tensor]
LOW = torch.bfloat16


class WholeGradients:
    """Keeps the gradients of weights in float32 until all ranks have added theirs."""

    def __init__(self, ranks: Ranks) -> None:
        """Take the ranks that share a batch."""
        self._ranks = ranks
        self._rounded: dict[Tensor, None] = {}

    def embed(self, embed: Embed) -> Embed:
        """Make a pass that rounds none of its weights' gradients."""

        def wide(image_NCHW: Tensor) -> Tensor:
            with _WideLayers(self._rounded):
                return embed(image_NCHW)

        return wide

    def add_up(self, parameters: Iterable[Tensor]) -> None:
        """Sum the gradients of parameters over all ranks, then round them."""
        self._ranks.add_up_gradients(parameters)
        for parameter in self._rounded:
            if parameter.grad is not None:
                parameter.grad.copy_(parameter.grad.to(LOW))


class _WideLayers(TorchFunctionMode):
    """Replaces the layers that autocast lowers, and notes whose gradients it would round."""

    def __init__(self, rounded: dict[Tensor, None]) -> None:
        super().__init__()
        self.rounded = rounded

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        is_lowered = torch.is_autocast_enabled("cpu")
        if is_lowered and func is F.linear:
            return self._noted(_WideLinear, *args, **kwargs or {})
        if is_lowered and func is F.conv2d and not isinstance(args[4], str):
            return self._noted(_WideConvolution, *args, **kwargs or {})
        return func(*args, **kwargs or {})

    def _noted(
        self, layer: Any, value: Tensor, weight: Tensor, bias: Tensor | None = None, *how: Any
    ) -> Any:
        self.rounded |= {each: None for each in (weight, bias) if each is not None}
        return layer.apply(value, weight, bias, *how)


class _WideConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, weight: Tensor, bias: Tensor | None, *how: Any) -> Tensor:
        low, low_weight = value.to(LOW), weight.to(LOW)
        ctx.save_for_backward(low, low_weight)
        ctx.kind, ctx.how, ctx.num_biases = value.dtype, how, None if bias is None else [len(bias)]
        return F.conv2d(low, low_weight, None if bias is None else bias.to(LOW), *how)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        value, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.how

        def back(kind: torch.dtype, wanted: list[bool]) -> tuple[Tensor | None, ...]:
            tensors = (each.to(kind) for each in (gradient, value, weight))
            way = stride, padding, dilation, False, [0, 0], groups, wanted
            found: tuple[Tensor | None, ...]
            found = torch.ops.aten.convolution_backward(*tensors, ctx.num_biases, *way)
            return found

        of_value, of_weight, of_bias = ctx.needs_input_grad[:3]
        value_grad = back(LOW, [of_value, False, False])[0]
        _, weight_grad, bias_grad = back(torch.float32, [False, of_weight, of_bias])
        value_grad = None if value_grad is None else value_grad.to(ctx.kind)
        return value_grad, weight_grad, bias_grad, None, None, None, None


class _WideLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        low, low_weight = value.to(LOW), weight.to(LOW)
        ctx.save_for_backward(low, low_weight)
        ctx.kind, ctx.has_bias = value.dtype, bias is not None
        return F.linear(low, low_weight, None if bias is None else bias.to(LOW))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        value, weight = ctx.saved_tensors
        rows, inputs = (each.float().flatten(0, -2) for each in (gradient, value))
        bias_grad = rows.sum(0) if ctx.has_bias else None
        return (gradient @ weight).to(ctx.kind), rows.T @ inputs, bias_grad
