"""FP16 in the graph itself, for runtimes that take the precision from it (TensorRT 11 and later).

The network from its first to its last weighted layer becomes float16. Normalising the image before
it, and the norm, the text head and the softmax behind it stay float32: sums of squares and logits
of 100 and more lose too much in float16.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dfkd_edge.artifacts import ModelFile
from dfkd_edge.config.settings import ExportConfig
from dfkd_edge.conversion.graph_view import WEIGHTED, GraphView
from dfkd_edge.errors import ConversionError
from dfkd_edge.target_profiles.profile import TargetProfile

from .graph_edit import write_checked
from .onnx_graph import TEXT_HEAD


class Fp16Exporter:
    """Float32 graph to one that computes in float16."""

    def export(
        self, fp32: ModelFile, target: TargetProfile, config: ExportConfig, path: Path
    ) -> ModelFile:
        """Write the graph with its casts, for a target that computes in FP16."""
        if "fp16" not in target.precisions:
            raise ConversionError(
                f"{target.name} does not compute in fp16",
                where="--precision",
                hint=f"it does in {', '.join(target.precisions)}",
            )
        return self.cast(fp32, path)

    def cast(self, fp32: ModelFile, path: Path) -> ModelFile:
        """Write the graph with its casts, for whatever target."""
        model = onnx.load(fp32.path)
        view = GraphView(model)
        inside = _between_weighted_layers(view)
        _cast_borders(view, inside)
        _cast_constants(view, inside)
        write_checked(model, "fp16", path)
        notes = {**fp32.notes, "num_fp16_nodes": len(inside), "num_nodes": len(model.graph.node)}
        return ModelFile(path, "onnx", "fp16", notes)


def _between_weighted_layers(view: GraphView) -> list[onnx.NodeProto]:
    """Nodes from the first weighted layer to the last, without side inputs."""
    nodes = view.graph.node
    weighted = {n.name for n in nodes if n.op_type in WEIGHTED and n.input[1] != TEXT_HEAD}
    after: set[str] = set()
    for node in nodes:
        if node.name in weighted or after.intersection(node.input):
            after.update(node.output)
    before: set[str] = set()
    for node in reversed(nodes):
        if node.name in weighted or before.intersection(node.output):
            before.update(node.input)
    both = after & before
    return [node for node in nodes if node.name in weighted or both.intersection(node.output)]


def _cast_borders(view: GraphView, inside: list[onnx.NodeProto]) -> None:
    """Cast what enters to float16, and what leaves back."""
    names = {node.name for node in inside}
    made = {name for node in inside for name in node.output}
    read = {name for node in inside for name in node.input if view.is_activation(name)}
    entering = read - made
    leaving = {
        name
        for name in made
        if name in view.outputs or any(r.name not in names for r in view.consumers[name])
    }
    half = {name: f"{name}_fp16" for name in entering | leaving}
    nodes: list[onnx.NodeProto] = []
    for node in view.graph.node:
        nodes.append(node)
        for name in node.output:
            if name in entering:
                nodes.append(_cast(name, half[name], TensorProto.FLOAT16))
            elif name in leaving:
                nodes.append(_cast(half[name], name, TensorProto.FLOAT))
        if node.name in names:
            node.input[:] = [half.get(name, name) for name in node.input]
            node.output[:] = [half.get(name, name) for name in node.output]
    view.replace_nodes(nodes)
    inside[:] = [node for node in view.graph.node if node.name in names]


def _cast(source: str, result: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [result], f"{result}_Cast", to=to)


def _cast_constants(view: GraphView, inside: list[onnx.NodeProto]) -> None:
    """Convert the constants of float16 nodes; those that float32 nodes read too are copied."""
    names = {node.name for node in inside}
    done: dict[str, str] = {}
    for node in inside:
        for index, name in enumerate(node.input):
            tensor = view.tensors.get(name)
            if tensor is None or tensor.data_type != TensorProto.FLOAT:
                continue
            if name not in done:  # a tensor that two nodes share is cast once
                done[name] = _halve(view, tensor, names)
            node.input[index] = done[name]


def _halve(view: GraphView, tensor: onnx.TensorProto, inside: set[str]) -> str:
    value = numpy_helper.to_array(tensor)
    if np.abs(value).max(initial=0) > np.finfo(np.float16).max:
        raise ConversionError(
            f"weight '{tensor.name}' is beyond float16's range", hint="export in fp32"
        )
    half = value.astype(np.float16)
    if all(reader.name in inside for reader in view.consumers[tensor.name]):
        tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
        return tensor.name
    return view.add_initializer(f"{tensor.name}_fp16", half)
