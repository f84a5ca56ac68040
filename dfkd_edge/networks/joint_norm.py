"""BatchNorm whose statistics are of a batch that ranks share, each of which has some images.

torch's own SyncBatchNorm serves cards alone. Means and squared deviations of all ranks are joined
as Chan et al. (1979) do, which rounds less than sums of squares; the gradient is that of the whole
batch.

Shape suffixes: N images, C channels, R ranks; inputs are [N, C] or [N, C, ...].
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dfkd_edge.machine.ranks import Ranks


def learns_statistics(network: nn.Module) -> bool:
    """Whether a BatchNorm of a network normalises by the statistics of the batch."""
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    return any(isinstance(module, norms) and module.training for module in network.modules())


def jointly_normed(embed: Callable[[Tensor], Tensor], ranks: Ranks) -> Callable[[Tensor], Tensor]:
    """Let every BatchNorm of a pass see the images of all ranks, which make it together."""

    def joint(image_NCHW: Tensor) -> Tensor:
        with _JointNorms(ranks):
            return embed(image_NCHW)

    return joint


class _JointNorms(TorchFunctionMode):
    """Replaces the one function that BatchNorm layers call, timm's own ones among them."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self.ranks = ranks

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.batch_norm and kwargs["training"]:
            return self._normed(*args, **kwargs)
        return func(*args, **kwargs)

    def _normed(
        self,
        input_NC: Tensor,
        running_mean_C: Tensor | None,
        running_var_C: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        momentum: float,
        eps: float,
        **_: object,
    ) -> Tensor:
        normal_NC, mean_C, var_C = _JointNormal.apply(input_NC.float(), eps, self.ranks)
        if running_mean_C is not None and running_var_C is not None:
            running_mean_C.lerp_(mean_C, momentum)
            running_var_C.lerp_(var_C, momentum)
        shape = (1, -1) + (1,) * (input_NC.ndim - 2)
        if weight is not None and bias is not None:
            normal_NC = normal_NC * weight.view(shape) + bias.view(shape)
        made: Tensor = normal_NC.to(input_NC.dtype)
        return made


class _JointNormal(torch.autograd.Function):
    """Takes the mean away and divides by the deviation."""

    @staticmethod
    def forward(ctx: Any, input_NC: Tensor, eps: float, ranks: Ranks) -> tuple[Tensor, ...]:
        """Return the normal input, its mean and its unbiased variance."""
        dims = [dim for dim in range(input_NC.ndim) if dim != 1]
        shape = [1 if dim in dims else -1 for dim in range(input_NC.ndim)]
        num, num_channels = input_NC.numel() // input_NC.shape[1], input_NC.shape[1]
        mean_C = input_NC.mean(dims)
        squares_C = (input_NC - mean_C.view(shape)).square().sum(dims)
        # each rank fills in its row: the sum of all has one of each
        all_RC = input_NC.new_zeros(ranks.count, 2 * num_channels + 1)
        all_RC[ranks.index] = torch.cat((mean_C, squares_C, mean_C.new_full((1,), num)))
        ranks.add_up([all_RC])
        mean_RC, squares_RC, num_R1 = all_RC.split((num_channels, num_channels, 1), 1)
        total = num_R1.sum()
        mean_C = (num_R1 * mean_RC).sum(0) / total
        squares_C = squares_RC.sum(0) + (num_R1 * (mean_RC - mean_C).square()).sum(0)
        scale_C = (squares_C / total + eps).rsqrt()
        normal_NC = (input_NC - mean_C.view(shape)) * scale_C.view(shape)
        ctx.save_for_backward(normal_NC, scale_C, total)
        ctx.dims, ctx.shape, ctx.ranks = dims, shape, ranks
        var_C = squares_C / (total - 1)
        ctx.mark_non_differentiable(mean_C, var_C)
        return normal_NC, mean_C, var_C

    @staticmethod
    def backward(ctx: Any, gradient_NC: Tensor, *_: Tensor) -> tuple[Tensor, None, None]:
        """Every image moves the statistics that all are normalised by."""
        normal_NC, scale_C, total = ctx.saved_tensors
        along_NC = gradient_NC * normal_NC
        sums_2C = torch.stack((gradient_NC.sum(ctx.dims), along_NC.sum(ctx.dims)))
        ctx.ranks.add_up([sums_2C])
        mean_C, along_C = (each.view(ctx.shape) for each in sums_2C / total)
        found_NC = (gradient_NC - mean_C - normal_NC * along_C) * scale_C.view(ctx.shape)
        return found_NC, None, None
