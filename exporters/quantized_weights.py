"""Weights in eight bits: one scale a channel, chosen for the least squared error, and the bias.

Shape suffixes: O output channels, I input channels of a group, K = everything but O.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from dfkd_edge.artifacts import Floats
from dfkd_edge.conversion.graph_view import GraphView, attribute, channel_axis
from dfkd_edge.target_profiles.profile import QuantizationSpec

SHRINK_STEPS = np.linspace(1.0, 0.75, 26)
"""Scales that are tried, relative to the one that clips nothing."""
MIN_SCALE = 1e-8


@dataclass(frozen=True, slots=True)
class QuantizedWeight:
    """INT8 weights with their scales."""

    value: NDArray[np.int8]
    scale: NDArray[np.float32]  # [] or [O]
    axis: int  # Axis of the output channels

    def dequantized(self) -> Floats:
        """What the device will compute with."""
        scale = _along(self.scale, self.axis, self.value.ndim)
        result: Floats = self.value.astype(np.float32) * scale
        return result


def is_depthwise(node: onnx.NodeProto) -> bool:
    """Whether each channel has a filter of its own."""
    return node.op_type == "Conv" and int(attribute(node, "group", 1)) > 1


def quantize_weight(
    node: onnx.NodeProto, weight: Floats, spec: QuantizationSpec, least_scale: Floats
) -> QuantizedWeight:
    """Quantize a layer's weights symmetrically.

    Scales are not made smaller than `least_scale` [O] or [], so that int32 biases cannot overflow.
    """
    axis = channel_axis(node)
    top = spec.weight_limit(is_depthwise(node))
    rows_OK = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    if not spec.per_channel:
        rows_OK = rows_OK.reshape(1, -1)
    scale = np.maximum(_best_scale(rows_OK, top), np.maximum(least_scale, MIN_SCALE))
    scale = scale.astype(np.float32) if spec.per_channel else scale.max().astype(np.float32)
    steps = np.rint(weight / _along(scale, axis, weight.ndim))
    value = np.clip(steps, -top, top).astype(np.int8)
    return QuantizedWeight(value, scale, axis)


def _along(scale: NDArray[np.float32], axis: int, num_axes: int) -> NDArray[np.float32]:
    """Reshape scales [O], or one scale [], to broadcast along an axis of the weights."""
    return scale.reshape([-1 if number == axis else 1 for number in range(num_axes)])


def _best_scale(rows_OK: Floats, top: int) -> NDArray[np.float64]:
    """Scale of each row with the least squared error."""
    full = np.abs(rows_OK).max(1).astype(np.float64) / top
    best: NDArray[np.float64] = full.copy()
    least = np.full(len(full), np.inf)
    for shrink in SHRINK_STEPS:
        scale = np.maximum(full * shrink, MIN_SCALE)[:, None]
        rounded = np.clip(np.rint(rows_OK / scale), -top, top) * scale
        error = np.square(rounded - rows_OK).sum(1)
        better = error < least
        best[better], least[better] = scale[better, 0], error[better]
    return best


def expected_shift(node: onnx.NodeProto, difference: Floats, channel_mean: Floats) -> Floats:
    """Mean change [O] of a layer's output when its weights change by `difference`.

    Adding its negative to the bias is the bias correction of Nagel et al. 2019 (data-free
    quantization); borders are taken for the interior.
    """
    if node.op_type == "Conv":
        summed_OI = difference.sum(axis=tuple(range(2, difference.ndim)))
        outputs, inputs = summed_OI.shape
        group = int(attribute(node, "group", 1))
        mean_GI = channel_mean.reshape(group, inputs)
        mean_OI = np.repeat(mean_GI, outputs // group, axis=0)
        shift: Floats = (summed_OI * mean_OI).sum(1)
        return shift
    rows_OK = np.moveaxis(difference, channel_axis(node), 0)
    return np.asarray(rows_OK @ channel_mean, np.float32)


def bias_of(node: onnx.NodeProto, view: GraphView, num_outputs: int) -> Floats:
    """Float bias [O] of a layer; zeros where it has none."""
    if len(node.input) > 2 and node.input[2]:
        value = view.constant(node.input[2])
        assert value is not None
        return np.broadcast_to(value.astype(np.float32), (num_outputs,)).copy()
    return np.zeros(num_outputs, np.float32)
