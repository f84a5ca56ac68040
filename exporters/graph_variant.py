"""The same network behind the input of a runtime that takes no bytes, with one output.

What runtimes with fixed preprocessing hand over is float32, channel planes first; what they read
back is one output of probabilities. Every weight and every scale stays as it was proven.
"""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from dfkd_edge.artifacts import ModelFile
from dfkd_edge.conversion.graph_view import GraphView, attribute
from dfkd_edge.errors import ConversionError
from dfkd_edge.runtime.preprocess import IMAGENET
from dfkd_edge.target_profiles.profile import Feed

from .graph_edit import drop_unread, take_floats, write_checked
from .onnx_graph import INPUT

PROBABILITIES = "probabilities"
TO_PLANES, TO_PIXELS = [0, 3, 1, 2], [0, 2, 3, 1]
"""Axes of NHWC as NCHW, and back."""
VALUES = {"planes": "0 to 255", "imagenet": "(x / 255 - ImageNet's mean) / its deviation"}


class GraphVariantExporter:
    """Writes variants of a bundle's own graph."""

    def export(self, model: ModelFile, feed: Feed, temperature: float, path: Path) -> ModelFile:
        """Write the variant, checked against the schemas of its opset."""
        graph = onnx.load(model.path)
        _keep_probabilities(graph, temperature)
        if feed in VALUES:
            _take_planes(graph, feed)
            _describe(graph, feed)
        del graph.graph.value_info[:]
        write_checked(graph, model.precision, path)
        return ModelFile(path, "onnx", model.precision, {**model.notes, "feed": feed})


def _keep_probabilities(model: onnx.ModelProto, temperature: float) -> None:
    """Drop the other outputs, and divide the logits by the temperature before their softmax."""
    view = GraphView(model)
    softmax = view.made_by(PROBABILITIES, "Softmax")
    if softmax is None or [info.name for info in view.inputs] != [INPUT]:
        raise ConversionError("graph is none of ours", hint="export the bundle again")
    kept = next(value for value in model.graph.output if value.name == PROBABILITIES)
    only = onnx.ValueInfoProto()
    only.CopyFrom(kept)
    del model.graph.output[:]
    model.graph.output.append(only)
    if temperature != 1:
        factor = view.add_initializer("inverse_temperature", np.array(1 / temperature, np.float32))
        cooled = view.free_name("logits_over_temperature")
        scaled = helper.make_node("Mul", [softmax.input[0], factor], [cooled], cooled)
        model.graph.node.insert(list(model.graph.node).index(softmax), scaled)
        softmax.input[0] = cooled
    drop_unread(model)


def _take_planes(model: onnx.ModelProto, feed: Feed) -> None:
    """Make the input float32 NCHW: what turned pixels into planes goes."""
    take_floats(model, INPUT)
    view = GraphView(model)
    (value,) = view.inputs
    dims = value.type.tensor_type.shape.dim
    side = dims[1].dim_value
    for dim, size in zip(list(dims)[1:], (3, side, side), strict=True):
        dim.dim_value = size
    first = [] if feed == "planes" else _levels(view)
    planes = first[-1].output[0] if first else INPUT
    nodes, read_as_pixels = list(model.graph.node), False
    for node in view.consumers[INPUT]:
        if node.op_type == "Transpose" and attribute(node, "perm") == TO_PLANES:
            nodes.remove(node)
            _rename_reads(nodes, node.output[0], planes)
        else:
            read_as_pixels = True
    if read_as_pixels:  # a graph that works on pixels first gets them back
        pixels = view.free_name("image_NHWC")
        _rename_reads(nodes, INPUT, pixels)
        first.append(helper.make_node("Transpose", [planes], [pixels], pixels, perm=TO_PIXELS))
    view.replace_nodes([*first, *nodes])


def _levels(view: GraphView) -> list[onnx.NodeProto]:
    """Undo ImageNet's normalisation: levels of 0 to 255 again."""
    _, mean, deviation = IMAGENET
    factor, shift = (
        view.add_initializer(name, np.array(values, np.float32).reshape(1, 3, 1, 1) * 255)
        for name, values in (("imagenet_deviation", deviation), ("imagenet_mean", mean))
    )
    scaled, levels = view.free_name("image_scaled"), view.free_name("image_levels")
    return [
        helper.make_node("Mul", [INPUT, factor], [scaled], scaled),
        helper.make_node("Add", [scaled, shift], [levels], levels),
    ]


def _rename_reads(nodes: list[onnx.NodeProto], old: str, new: str) -> None:
    for node in nodes:
        node.input[:] = [new if name == old else name for name in node.input]


def _describe(model: onnx.ModelProto, feed: Feed) -> None:
    """Replace the contract of the bundle's own graph, which the file carries."""
    text = json.dumps(
        {"layout": "NCHW", "dtype": "float32", "channels": "RGB", "values": VALUES[feed]}
    )
    for item in model.metadata_props:
        if item.key == "dfkd_edge.preprocess":
            item.value = text
