"""A tiny classifier as an ONNX graph, float or with Q/DQ nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

WIDTH = 16


class Net:
    """A residual classifier in a few nodes: Cast, Conv, Conv + shortcut, pooling, Gemm."""

    def __init__(
        self,
        *,
        int8: bool = False,
        asymmetric: bool = False,
        quantized_branch: bool = False,
        narrow: bool = False,
    ) -> None:
        self.int8, self.asymmetric, self.narrow = int8, asymmetric, narrow
        self.quantized_branch = quantized_branch or asymmetric
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, NDArray[np.generic]] = {}
        self.random = np.random.default_rng(0)

    def build(self) -> ModelProto:
        self.add("Cast", ["image"], "cast", to=TensorProto.FLOAT)
        self.add("Transpose", ["cast"], "nchw", perm=[0, 3, 1, 2])
        first = self.weighted("Conv", "nchw", "conv1", (WIDTH, 3, 3, 3), pads=[1, 1, 1, 1])
        self.add("Relu", [first], "relu1")
        shortcut = self.activation("relu1")
        branch = self.weighted("Conv", "relu1", "conv2", (WIDTH, WIDTH, 1, 1))
        if self.quantized_branch:
            branch = self.activation(branch)
        self.add("Add", [branch, shortcut], "sum")
        self.add("GlobalAveragePool", [self.activation("sum")], "pool")
        self.add("Flatten", ["pool"], "features")
        self.weighted("Gemm", "features", "logits", (4, WIDTH), transB=1)
        if self.narrow:
            self.weighted("Conv", "relu1", "narrow", (6, WIDTH, 3, 3))
            self.weighted("Conv", "narrow", "narrower", (6, 6, 3, 3))
        image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 8, 8, 3])
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 4])
        initializers = [numpy_helper.from_array(v, k) for k, v in self.weights.items()]
        graph = helper.make_graph(self.nodes, "net", [image], [logits], initializers)
        opset = helper.make_opsetid("", 13)
        return helper.make_model(graph, opset_imports=[opset], ir_version=7)

    def add(self, op_type: str, inputs: list[str], output: str, **attributes: Any) -> str:
        name = f"{op_type}_{output}"
        node = helper.make_node(op_type, inputs, [output], name=name, **attributes)
        self.nodes.append(node)
        return output

    def activation(self, name: str) -> str:
        """Put a Q/DQ pair on a tensor, once."""
        if not self.int8 or f"{name}_dq" in {node.output[0] for node in self.nodes}:
            return f"{name}_dq" if self.int8 else name
        zero = np.array(7, np.uint8) if self.asymmetric else np.array(0, np.int8)
        return self.quantizers(name, np.array(0.05, np.float32), zero)

    def quantizers(self, name: str, scale: NDArray[np.generic], zero: NDArray[np.generic]) -> str:
        self.weights |= {f"{name}_scale": scale, f"{name}_zero": zero}
        axis = {"axis": 0} if scale.size > 1 else {}
        arguments = [f"{name}_scale", f"{name}_zero"]
        self.add("QuantizeLinear", [name, *arguments], f"{name}_q", **axis)
        return self.add("DequantizeLinear", [f"{name}_q", *arguments], f"{name}_dq", **axis)

    def weighted(
        self, op_type: str, source: str, output: str, shape: tuple[int, ...], **attributes: Any
    ) -> str:
        name = f"{output}_weight"
        weight = self.random.normal(size=shape).astype(np.float32)
        self.weights |= {name: weight, f"{output}_bias": np.zeros(shape[0], np.float32)}
        if self.int8:
            source = self.activation(source)
            scale = np.abs(weight).reshape(shape[0], -1).max(1) / 127
            self.quantizers(name, scale.astype(np.float32), np.zeros(shape[0], np.int8))
            name = f"{name}_dq"
        return self.add(op_type, [source, name, f"{output}_bias"], output, **attributes)


@pytest.fixture
def small_net() -> Callable[..., ModelProto]:
    return lambda **options: Net(**options).build()
