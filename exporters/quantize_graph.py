"""Writes a quantization plan into a graph: Q/DQ pairs, INT8 weights, biases.

An asymmetric uint8 graph is fed the image's own bytes instead of normalising them first.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from dfkd_edge.artifacts import Floats
from dfkd_edge.conversion.graph_view import GraphView, channel_axis
from dfkd_edge.interfaces import Calibration
from dfkd_edge.target_profiles.profile import QuantizationSpec

from .graph_edit import activation_bounds, drop_unread
from .quantization_plan import QuantizationPlan
from .quantized_weights import QuantizedWeight, bias_of, expected_shift, quantize_weight

LIMITS = {"int8": (-128, 127), "uint8": (0, 255)}
DTYPES = {"int8": np.int8, "uint8": np.uint8}
MIN_WIDTH = 1e-6  # Of a range; a dead layer's is narrower
ROUNDING = 1e-5  # Of a range's width: what float32 scales may miss an activation's bound by
MAX_BIAS_LEVELS = 2.0**30  # Half of what int32 holds: the sum of products still needs room
CHAIN = ("Sub", "Mul", "Transpose", "Cast")  # From the first layer back to the image


@dataclass(frozen=True, slots=True)
class DirectInput:
    """The normalised image as dequantized bytes."""

    tensor: str  # The normalised image in the float graph
    image: str
    permutation: tuple[int, ...]
    scale: float
    zero_point: int
    rest: float  # What the normalised value exceeds the dequantized one by

    def transpose(self, output: str) -> onnx.NodeProto:
        """Bring the bytes to the layout of the network."""
        return helper.make_node(
            "Transpose", [self.image], [output], f"{output}_Transpose", perm=self.permutation
        )


def find_direct_input(view: GraphView, readers: dict[str, set[str]]) -> DirectInput | None:
    """Find the normalised image where convolutions alone read it; None where it differs.

    Normalisation with one mean and deviation is x * scale - shift, which is DequantizeLinear up to
    the rounding of its zero point; that constant rest goes into the bias of the layers behind it
    (borders, where padding is the zero point, keep it: half a grey level).
    """
    image = view.graph.input[0].name
    for tensor, names in readers.items():
        chain = _chain_back(view, tensor)
        if chain is None or chain[-1].input[0] != image:
            continue
        factor, offset = view.constant(chain[1].input[1]), view.constant(chain[0].input[1])
        consumers = view.consumers[tensor]
        conv_only = {node.op_type for node in consumers} == {"Conv"}  # whose biases take the rest
        if not conv_only or names != {node.name for node in consumers}:
            return None
        if factor is None or offset is None or factor.size != 1 or offset.size != 1:
            return None
        scale, shift = float(factor.item()), float(offset.item())
        zero_point = round(shift / scale)
        if not 0 <= zero_point <= 255:
            return None
        permutation = helper.get_attribute_value(chain[2].attribute[0])
        rest = scale * zero_point - shift
        return DirectInput(tensor, image, tuple(permutation), scale, zero_point, rest)
    return None


def _chain_back(view: GraphView, tensor: str) -> list[onnx.NodeProto] | None:
    """Nodes of CHAIN that end in a tensor; only the last one's output may have several readers."""
    nodes: list[onnx.NodeProto] = []
    for op_type in CHAIN:
        node = view.made_by(tensor, op_type)
        if node is None or (nodes and len(view.consumers[tensor]) != 1):
            return None
        nodes.append(node)
        tensor = node.input[0]
    return nodes


class GraphQuantizer:
    """Rewrites one graph in place."""

    def __init__(
        self,
        view: GraphView,
        spec: QuantizationSpec,
        plan: QuantizationPlan,
        calibration: Calibration,
    ) -> None:
        self.view, self.spec, self.plan, self.calibration = view, spec, plan, calibration
        self._scales: dict[str, float] = {}
        takes_bytes = spec.activation_dtype == "uint8" and not spec.activation_symmetric
        self._direct = find_direct_input(view, plan.readers) if takes_bytes else None

    def rewrite(self) -> None:
        """Insert everything; the graph stays in topological order."""
        pairs = {tensor: self._pair(tensor) for tensor in self.plan.readers}
        before = {node.name: self._layer(node) for node in self.plan.weighted}
        nodes: list[onnx.NodeProto] = []
        for node in self.view.graph.node:
            for index, name in enumerate(node.input):
                if node.name in self.plan.readers.get(name, ()):
                    node.input[index] = pairs[name][-1].output[0]
            nodes += [*before.get(node.name, ()), node]
            for name in node.output:
                nodes += pairs.get(name, ())
        self.view.replace_nodes(nodes)
        drop_unread(self.view.model)

    def _pair(self, tensor: str) -> list[onnx.NodeProto]:
        """Q and DQ of an activation, one scale for the tensor."""
        middle = self.view.free_name(f"{tensor}_quantized")
        end = self.view.free_name(f"{tensor}_dequantized")
        if self._direct and self._direct.tensor == tensor:
            constants = self._constants(tensor, self._direct.scale, self._direct.zero_point)
            return [self._direct.transpose(middle), _dequantize([middle, *constants], end, None)]
        scale, zero_point = self._scale(*self.calibration.ranges[self._measured(tensor)])
        constants = self._constants(tensor, scale, zero_point)
        inputs = [self._before_activation(tensor, scale, zero_point), *constants]
        quantize = helper.make_node("QuantizeLinear", inputs, [middle], f"{tensor}_QuantizeLinear")
        return [quantize, _dequantize([middle, *constants], end, None)]

    def _constants(self, tensor: str, scale: float, zero_point: int) -> list[str]:
        self._scales[tensor] = scale
        dtype = DTYPES[self.spec.activation_dtype]
        return [
            self.view.add_initializer(f"{tensor}_scale", np.array(scale, np.float32)),
            self.view.add_initializer(f"{tensor}_zero_point", np.array(zero_point, dtype)),
        ]

    def _scale(self, low: float, high: float) -> tuple[float, int]:
        first, last = LIMITS[self.spec.activation_dtype]
        if high - low < MIN_WIDTH:  # a dead layer: any scale holds
            low, high = -1.0, 1.0
        if self.spec.activation_symmetric:
            reach = max(-low, high)
            return float(np.float32(reach / ((last - first) // 2))), (first + last + 1) // 2
        scale = float(np.float32((high - low) / (last - first)))  # as the graph will hold it
        return scale, int(np.clip(round(first - low / scale), first, last))

    def _before_activation(self, tensor: str, scale: float, zero_point: int) -> str:
        """Skip a ReLU or Clip that the ends of the quantized range repeat.

        ONNX Runtime makes one QLinearConv only where nothing lies between layer and Q, and its own
        pass misses ranges that exceed a Clip by rounding.
        """
        node = self.view.producers.get(tensor)
        if not self.spec.quantize_outputs or node is None or tensor in self.view.outputs:
            return tensor
        bounds = activation_bounds(node, self.view)
        everyone = {reader.name for reader in self.view.consumers[tensor]}
        if bounds is None or everyone != self.plan.readers[tensor]:
            return tensor
        first, last = LIMITS[self.spec.activation_dtype]
        low, high = (first - zero_point) * scale, (last - zero_point) * scale
        slack = ROUNDING * (high - low)
        is_repeated = bounds[0] <= low + slack and bounds[1] >= high - slack
        return str(node.input[0]) if is_repeated else tensor

    def _layer(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Quantize weights and bias of a layer; returns the DQ nodes that go before it."""
        weight = self.view.constant(node.input[1])
        assert weight is not None
        num_outputs = weight.shape[channel_axis(node)]
        if node.op_type == "MatMul":  # it has no bias; the Add behind it stays float
            no_bias = np.zeros(num_outputs, np.float32)
            return [self._weight_node(node, quantize_weight(node, weight, self.spec, no_bias))]
        bias = bias_of(node, self.view, num_outputs)
        input_scale = self._scales[node.input[0]]
        least = np.abs(bias) / (MAX_BIAS_LEVELS * input_scale)  # so that an int32 bias fits
        quantized = quantize_weight(node, weight, self.spec, least.astype(np.float32))
        means = self.calibration.channel_means.get(self._measured(node.input[0]))
        if means is not None:
            difference = quantized.dequantized() - weight
            bias = bias - expected_shift(node, difference, means)  # Nagel et al., ICCV 2019
        if self._direct and self._direct.tensor == node.input[0]:
            bias = bias + self._direct.rest * weight.reshape(num_outputs, -1).sum(1)
        nodes = [self._weight_node(node, quantized)]
        if self.spec.bias_dtype == "int32":
            nodes.append(self._integer_bias(node, bias, input_scale * quantized.scale))
        else:
            self._set_bias(node, self.view.add_initializer(f"{node.name}.bias_int8", bias))
        return nodes

    def _measured(self, tensor: str) -> str:
        """The tensor whose range and channel means stand for this one's: pools and reshapes."""
        while tensor in self.plan.same_range:
            tensor = self.plan.same_range[tensor]
        return tensor

    def _weight_node(self, node: onnx.NodeProto, weight: QuantizedWeight) -> onnx.NodeProto:
        dequantize = self._stored(node.input[1], weight.value, weight.scale, weight.axis)
        node.input[1] = dequantize.output[0]
        return dequantize

    def _integer_bias(self, node: onnx.NodeProto, bias: Floats, scale: Floats) -> onnx.NodeProto:
        value = np.rint(bias / scale).astype(np.int32)
        dequantize = self._stored(f"{node.name}.bias", value, np.asarray(scale, np.float32), 0)
        self._set_bias(node, dequantize.output[0])
        return dequantize

    def _stored(
        self, name: str, value: NDArray[np.integer], scale: Floats, axis: int
    ) -> onnx.NodeProto:
        """Add quantized constants with their scales and no zero points; returns their DQ node."""
        inputs = [
            self.view.add_initializer(f"{name}_quantized", value),
            self.view.add_initializer(f"{name}_scale", scale),
            self.view.add_initializer(f"{name}_zero_point", np.zeros(scale.shape, value.dtype)),
        ]
        output = self.view.free_name(f"{name}_dequantized")
        return _dequantize(inputs, output, axis if scale.ndim else None)

    def _set_bias(self, node: onnx.NodeProto, name: str) -> None:
        if node.op_type == "MatMul":  # it has no bias input
            return
        if len(node.input) > 2:
            node.input[2] = name
        else:
            node.input.append(name)


def _dequantize(inputs: list[str], output: str, axis: int | None) -> onnx.NodeProto:
    node = helper.make_node("DequantizeLinear", inputs, [output], f"{output}_DequantizeLinear")
    if axis is not None:
        node.attribute.append(helper.make_attribute("axis", axis))
    return node
