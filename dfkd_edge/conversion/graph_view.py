"""An ONNX graph as lint reads it: who makes a tensor, who takes it, what is constant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from dfkd_edge.errors import ConversionError

WEIGHTED_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


def read_model(path: Path) -> ModelProto:
    """Read an ONNX file; weights in other files stay where they are.

    Raises:
        ConversionError: it is missing or no ONNX model.
    """
    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise ConversionError("cannot be read as an ONNX model", where=str(path)) from error
    if not model.graph.node:
        raise ConversionError("holds no ONNX graph", where=str(path))
    return model


def label(node: NodeProto) -> str:
    """Name of a node for people; nameless ones go by what they make."""
    return node.name or f"{node.op_type} that makes {node.output[0]}"


class GraphView:
    """Look-ups over the main graph of a model."""

    def __init__(self, model: ModelProto) -> None:
        """Index the graph."""
        self.model = model
        self.nodes = list(model.graph.node)
        self.opsets = {opset.domain or "ai.onnx": opset.version for opset in model.opset_import}
        self.metadata = {prop.key: prop.value for prop in model.metadata_props}
        self.tensors: dict[str, TensorProto] = {t.name: t for t in model.graph.initializer}
        self.producers: dict[str, NodeProto] = {}
        self.consumers: defaultdict[str, list[NodeProto]] = defaultdict(list)
        for node in self.nodes:
            self.producers |= dict.fromkeys(node.output, node)
            for name in node.input:
                self.consumers[name].append(node)
            if node.op_type == "Constant" and (value := self.attribute(node, "value")) is not None:
                self.tensors[node.output[0]] = value

    @property
    def inputs(self) -> list[onnx.ValueInfoProto]:
        """Inputs that a caller feeds; old models list their weights among them."""
        return [info for info in self.model.graph.input if info.name not in self.tensors]

    @property
    def quantizers(self) -> list[NodeProto]:
        """Every QuantizeLinear and DequantizeLinear, in graph order."""
        return [node for node in self.nodes if node.op_type in (QUANTIZE, DEQUANTIZE)]

    def every_node(self) -> Iterator[NodeProto]:
        """Nodes of the main graph, of its branches and loops, and of local functions."""
        waiting = [*self.nodes, *(node for f in self.model.functions for node in f.node)]
        while waiting:
            node = waiting.pop(0)
            yield node
            for attribute in node.attribute:
                if attribute.type == AttributeProto.GRAPH:
                    waiting += attribute.g.node

    def attribute(self, node: NodeProto, name: str, default: Any = None) -> Any:
        """Value of an attribute, or the default."""
        for attribute in node.attribute:
            if attribute.name == name:
                return helper.get_attribute_value(attribute)
        return default

    def argument(self, node: NodeProto, index: int) -> str:
        """Name of an input; empty when it is left out."""
        return node.input[index] if index < len(node.input) else ""

    def constant(self, name: str) -> NDArray[Any] | None:
        """Value of a tensor that is known before the model runs."""
        tensor = self.tensors.get(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            return None
        return np.asarray(numpy_helper.to_array(tensor))

    def made_by(self, name: str, *op_types: str) -> NodeProto | None:
        """The producer of a tensor, when it is one of these operators."""
        node = self.producers.get(name)
        return node if node is not None and node.op_type in op_types else None

    def weight_of(self, node: NodeProto) -> str:
        """Name of the constant that a quantizer works on; empty for an activation."""
        source = self.argument(node, 0)
        if source not in self.tensors and (quantize := self.made_by(source, QUANTIZE)):
            source = quantize.input[0]
        return source if source in self.tensors else ""

    def weight(self, node: NodeProto) -> NDArray[Any] | None:
        """Weight of a Conv, Gemm or MatMul, float or behind its DequantizeLinear."""
        name = self.argument(node, 1)
        if dequantize := self.made_by(name, DEQUANTIZE):
            name = self.weight_of(dequantize)
        return self.constant(name)

    def is_quantized(self, node: NodeProto) -> bool:
        """Whether a weighted operator gets its activation from a DequantizeLinear."""
        fed = self.made_by(self.argument(node, 0), DEQUANTIZE)
        return node.op_type in WEIGHTED_OPS and fed is not None

    def carries_float16(self) -> bool:
        """Whether a weight or a Cast of the graph is in half precision."""
        if any(tensor.data_type == TensorProto.FLOAT16 for tensor in self.tensors.values()):
            return True
        casts = (node for node in self.nodes if node.op_type == "Cast")
        return any(self.attribute(node, "to") == TensorProto.FLOAT16 for node in casts)


MODEL = "(model)"


@dataclass(frozen=True, slots=True)
class LintFinding:
    """One place where a graph breaks a rule of its target."""

    rule: str
    """A name of `lint.RULES`."""
    severity: Literal["error", "warning"]
    """An error will not run on the target, or runs wrongly; a warning costs speed."""
    node: str
    """The node, or `(model)`."""
    message: str
    """What is wrong and what to do."""

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.severity} {self.rule}: {self.node}: {self.message}"
