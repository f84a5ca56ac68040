"""Operators of newer opsets, spelled out in older ones, compute what they computed."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
from dfkd_edge.exporters.graph_edit import restamp
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto, checker, helper, numpy_helper

SHAPE = (2, 3, 8)


def model_of(graph: GraphProto) -> ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def layer_norm(has_bias: bool) -> ModelProto:
    generator = np.random.default_rng(0)
    tensors = [
        numpy_helper.from_array(generator.normal(size=8).astype(np.float32), name)
        for name in ("scale", "bias")
    ]
    inputs = ["x", "scale", *["bias"] * has_bias]
    nodes = [
        helper.make_node("LayerNormalization", inputs, ["y"], "norm", epsilon=1e-3),
        helper.make_node("Mul", ["y", "y"], ["z"], "square"),
    ]
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, SHAPE) for n in "xz"]
    return model_of(helper.make_graph(nodes, "g", value[:1], value[1:], tensors))


def part_of_shape(**ends: Any) -> ModelProto:
    node = helper.make_node("Shape", ["x"], ["y"], "part", **ends)
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)
    made = helper.make_tensor_value_info("y", TensorProto.INT64, None)
    return model_of(helper.make_graph([node], "g", [value], [made]))


def answer(model: ModelProto) -> NDArray[Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    value = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    (found,) = session.run(None, {"x": value})
    return np.asarray(found)


@pytest.mark.parametrize(
    "model",
    [layer_norm(True), layer_norm(False), part_of_shape(start=0), part_of_shape(start=1, end=2)],
    ids=["norm", "norm without bias", "whole shape", "part of a shape"],
)
def test_what_opset_13_lacks_is_spelled_out_and_computes_the_same(model: ModelProto) -> None:
    wanted = answer(model)
    restamp(model, 13, 7)
    checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == 13
    assert not {node.op_type for node in model.graph.node} & {"LayerNormalization"}
    np.testing.assert_allclose(answer(model), wanted, rtol=1e-5, atol=1e-5)
