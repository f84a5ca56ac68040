"""An ONNX graph with its look-up tables: lint rules read it, exporters edit through it."""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from dfkd_edge.errors import ConversionError

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
FEW_CHANNELS, VECTOR = 16, 8
"""INT8 kernels of tensor cores take channels by 16; vectorised ones of CUDA cores by 8."""
MODEL = "(model)"
PRECISION_KEY = "dfkd_edge.precision"  # Of the metadata: what the exporter promises
Severity = Literal["error", "warning"]
"""An error will not run on the target, or runs wrongly; a warning costs speed."""
Violations = Iterator[tuple[Severity, str, str]]
"""What a lint rule gives: the severity, the node or `(model)`, and what is wrong and what to do."""


def read_model(path: Path) -> ModelProto:
    """Read an ONNX file; weights in other files stay where they are.

    Raises:
        ConversionError: it is missing or no ONNX model.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise ConversionError("cannot be read as an ONNX model", where=str(path)) from error
    if not model.graph.node:  # protobuf takes an empty file for an empty message
        raise ConversionError("holds no ONNX graph", where=str(path))
    return model


def label(node: NodeProto) -> str:
    """Name of a node for people; nameless ones go by what they make."""
    return node.name or f"{node.op_type} that makes {node.output[0]}"


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """Value of an attribute, or the default."""
    found = (item for item in node.attribute if item.name == name)
    return next((helper.get_attribute_value(item) for item in found), default)


def argument(node: NodeProto, index: int) -> str:
    """Name of an input; empty when it is left out."""
    return node.input[index] if index < len(node.input) else ""


def channel_axis(node: NodeProto) -> int:
    """Axis of the output channels in the weights of a weighted node."""
    is_transposed = node.op_type == "Gemm" and attribute(node, "transB", 0)
    return 0 if node.op_type == "Conv" or is_transposed else 1  # ConvTranspose: inputs come first


def is_too_narrow(node: NodeProto, weight_shape: Sequence[int]) -> bool:
    """Whether a Conv is better left in float: ModelOpt's rule for TensorRT.

    Below 16 channels tensor cores run half empty, and Q/DQ costs more than they gain.
    """
    group = int(attribute(node, "group", 1))
    num_out, num_in, kernel = weight_shape[0], weight_shape[1] * group, weight_shape[2:]
    if node.op_type != "Conv" or min(num_out, num_in) >= FEW_CHANNELS:
        return False
    if group > 1:
        return num_out % VECTOR > 0 or min(kernel, default=1) < 3
    is_first = num_in <= 4  # the image has its own kernels
    is_wide = is_first or max(num_out, num_in) >= FEW_CHANNELS
    is_aligned = num_out % VECTOR == 0 or num_in % VECTOR == 0
    return not (is_wide and is_aligned and len(set(kernel)) == 1)


class GraphView:
    """The main graph of a model, with look-up tables; make a new one after editing nodes."""

    def __init__(self, model: ModelProto) -> None:
        """Index the graph."""
        self.model, self.graph = model, model.graph
        self.opsets = {opset.domain or "ai.onnx": opset.version for opset in model.opset_import}
        self.metadata = {prop.key: prop.value for prop in model.metadata_props}
        self.tensors: dict[str, TensorProto] = {t.name: t for t in self.graph.initializer}
        """Constants: initializers, and values of Constant nodes."""
        self.producers: dict[str, NodeProto] = {
            name: node for node in self.graph.node for name in node.output
        }
        self.consumers: defaultdict[str, list[NodeProto]] = defaultdict(list)
        for node in self.graph.node:
            for name in dict.fromkeys(node.input):  # a node may read one tensor twice
                self.consumers[name].append(node)
            if node.op_type == "Constant" and (value := attribute(node, "value")) is not None:
                self.tensors[node.output[0]] = value
        self.outputs = {value.name for value in self.graph.output}
        self._numbers = itertools.count()
        self._taken = {*self.producers, *self.tensors, *self.consumers}

    @property
    def inputs(self) -> list[onnx.ValueInfoProto]:
        """Inputs that a caller feeds; old models list their weights among them."""
        return [info for info in self.graph.input if info.name not in self.tensors]

    @property
    def quantizers(self) -> list[NodeProto]:
        """Every QuantizeLinear and DequantizeLinear, in graph order."""
        return [node for node in self.graph.node if node.op_type in (QUANTIZE, DEQUANTIZE)]

    def every_node(self) -> Iterator[NodeProto]:
        """Nodes of the main graph, of its branches and loops, and of local functions."""
        waiting = [*self.graph.node, *(node for f in self.model.functions for node in f.node)]
        while waiting:
            node = waiting.pop(0)
            yield node
            for item in node.attribute:
                if item.type == AttributeProto.GRAPH:
                    waiting += item.g.node

    def constant(self, name: str) -> NDArray[Any] | None:
        """Value of a tensor that is known before the model runs."""
        tensor = self.tensors.get(name)
        # of a large model the weights may lie in files of their own, which are not read
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            return None
        return np.asarray(numpy_helper.to_array(tensor))

    def is_activation(self, name: str) -> bool:
        """Whether a tensor depends on the input."""
        return bool(name) and name not in self.tensors

    def made_by(self, name: str, *op_types: str) -> NodeProto | None:
        """The producer of a tensor, when it is one of these operators."""
        node = self.producers.get(name)
        return node if node is not None and node.op_type in op_types else None

    def weight_of(self, quantizer: NodeProto) -> str:
        """Name of the constant that a quantizer works on; empty for an activation."""
        source = argument(quantizer, 0)
        if source not in self.tensors and (quantize := self.made_by(source, QUANTIZE)):
            source = quantize.input[0]
        return source if source in self.tensors else ""

    def weight(self, node: NodeProto) -> NDArray[Any] | None:
        """Weight of a weighted node, float or behind its DequantizeLinear; None for others."""
        name = argument(node, 1) if node.op_type in WEIGHTED else ""
        if dequantize := self.made_by(name, DEQUANTIZE):
            name = self.weight_of(dequantize)
        return self.constant(name)

    def is_quantized(self, node: NodeProto) -> bool:
        """Whether a weighted node gets its activation from a DequantizeLinear."""
        fed = self.made_by(argument(node, 0), DEQUANTIZE)
        return node.op_type in WEIGHTED and fed is not None

    def carries_float16(self) -> bool:
        """Whether a weight or a Cast of the graph is in half precision."""
        if any(tensor.data_type == TensorProto.FLOAT16 for tensor in self.tensors.values()):
            return True
        casts = (node for node in self.graph.node if node.op_type == "Cast")
        return any(attribute(node, "to") == TensorProto.FLOAT16 for node in casts)

    def depth(self) -> dict[str, int]:
        """Longest path from the input to each tensor, in nodes."""
        depth: dict[str, int] = defaultdict(int)
        for node in self.graph.node:  # ONNX nodes lie in topological order
            level = 1 + max((depth[name] for name in node.input), default=0)
            for name in node.output:
                depth[name] = level
        return depth

    def free_name(self, name: str) -> str:
        """Reserve a name that nothing in the graph has."""
        while name in self._taken:
            name = f"{name}_{next(self._numbers)}"
        self._taken.add(name)
        return name

    def add_initializer(self, name: str, value: NDArray[Any]) -> str:
        """Add a constant under a free name and return that name."""
        free = self.free_name(name)
        tensor = numpy_helper.from_array(np.asarray(value, order="C"), free)
        self.graph.initializer.append(tensor)
        self.tensors[free] = tensor
        return free

    def replace_nodes(self, nodes: Sequence[NodeProto]) -> None:
        """Replace all nodes by others, in topological order; inferred shapes are dropped."""
        del self.graph.node[:], self.graph.value_info[:]
        self.graph.node.extend(nodes)
