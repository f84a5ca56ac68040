"""Mixed precision where it pays: bfloat16 on accelerators and on CPUs that compute in it.

A CPU without bfloat16 instructions emulates them: a convolution then takes about fifty times longer
than in float32, so such CPUs stay in float32. One that has them lacks kernels for the gradients of
depthwise convolutions: those of the default student then take two thirds of a step. A card without
bfloat16 (T4, V100, RTX 20xx) computes in float16, whose smallest numbers are larger than gradients:
the loss is scaled there, and a step whose gradients overflow is left out (Micikevicius et al., ICLR
2018).
"""

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_edge.runs.checkpoint import SCALE

GRADIENT_SCALE = 2.0**10
"""Of gradients that no optimiser takes, in float16: large enough for images, far from overflow."""


def has_fast_bfloat16(device_type: str) -> bool:
    """Whether this kind of device computes in bfloat16 without emulating it."""
    return bool(_has_fast_bfloat16(device_type))


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _has_fast_bfloat16(device_type: str) -> bool:  # asked within, a compiled graph would break
    if device_type == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return device_type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


def compute_type(device_type: str) -> torch.dtype:
    """Return the type that this kind of device multiplies in where precision is mixed."""
    if has_fast_bfloat16(device_type):
        return torch.bfloat16
    return torch.float32 if device_type == "cpu" else torch.float16


def mixed_precision(device_type: str, dtype: torch.dtype | None = None) -> torch.autocast:
    """Autocast to the device's compute type; does nothing where that is float32."""
    dtype = dtype or compute_type(device_type)
    is_mixed = dtype != torch.float32  # which autocast would warn of
    return torch.autocast(device_type, dtype if is_mixed else None, enabled=is_mixed)


def in_compute_type(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Keep a frozen network's matrices in the type that autocast would turn them into at each pass.

    Biases and norms stay in float32: autocast takes them as they are. What reads the weights as
    they were trained, such as an exporter, needs another copy.
    """
    for parameter in network.parameters():
        if parameter.ndim > 1 and parameter.dtype == torch.float32:
            parameter.data = parameter.data.to(dtype)
    return network


class Precision:
    """How a network is trained on a kind of device: the type it computes in, and float16's scale.

    One object belongs to one training; outside float16 the scale is 1 and costs nothing.
    """

    def __init__(self, device_type: str, dtype: torch.dtype | None = None) -> None:
        """Take the device's own compute type unless one is given."""
        self.device_type = device_type
        self.dtype = dtype or compute_type(device_type)
        self._scaler = torch.amp.GradScaler(device_type, enabled=self.is_scaled)

    @property
    def is_scaled(self) -> bool:
        """Whether gradients are computed of a scaled loss."""
        return self.dtype == torch.float16

    @property
    def wants_fused(self) -> bool:
        """Whether an optimiser should be `fused`: one kernel a step on a card.

        With a scale it must be: others wait to hear whether gradients overflowed, and have no
        moments for a checkpoint when the first steps are left out.
        """
        return self.is_scaled or self.device_type == "cuda"

    def autocast(self) -> torch.autocast:
        """Compute what is inside in this precision."""
        return mixed_precision(self.device_type, self.dtype)

    def descend(
        self, loss: Tensor, optimiser: torch.optim.Optimizer, max_norm: float = float("inf")
    ) -> None:
        """Take a step down the gradient, shortened to `max_norm`; waits for no number."""
        optimiser.zero_grad()
        self.backward(loss)
        self.step(optimiser, max_norm)

    def backward(self, loss: Tensor) -> None:
        """Add a loss' gradient, or that of a part of a batch, to those that are there."""
        self._scaler.scale(loss).backward()

    def step(self, optimiser: torch.optim.Optimizer, max_norm: float = float("inf")) -> None:
        """Take the step of `descend` down the gradient that `backward` added up."""
        if self.is_scaled:  # a rank without a part of the step has scaled no loss of its own yet
            self._scaler.scale(torch.zeros((), device=self.device_type))
        self._scaler.unscale_(optimiser)
        if max_norm != float("inf"):
            parameters = [p for group in optimiser.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        self._scaler.step(optimiser)
        self._scaler.update()

    def gradient(self, loss: Tensor, of: Tensor) -> Tensor:
        """Return the gradient of a loss that no optimiser descends; 0 where float16 overflowed."""
        if not self.is_scaled:
            return torch.autograd.grad(loss, of)[0]
        (scaled,) = torch.autograd.grad(loss * GRADIENT_SCALE, of)
        return (scaled / GRADIENT_SCALE).nan_to_num(0.0, 0.0, 0.0)

    def tensors(self) -> dict[str, Tensor]:
        """State of the scale for a checkpoint, on the host; reading it waits for the device."""
        state = self._scaler.state_dict()  # empty without a scale
        return {f"{SCALE}{name}": torch.tensor(value) for name, value in state.items()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on with a scale that `tensors` gave, among other tensors of a checkpoint."""
        state = {
            name.removeprefix(SCALE): value.item()
            for name, value in tensors.items()
            if name.startswith(SCALE)
        }
        self._scaler.load_state_dict(state)


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
