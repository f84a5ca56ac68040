"""Small edits of ONNX graphs: batch, names, opset; and how they are written."""

from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from dfkd_edge.conversion.graph_view import WEIGHTED, GraphView, attribute
from dfkd_edge.errors import ConversionError
from dfkd_edge.files import atomic_write
from dfkd_edge.target_profiles.profile import Precision

PRECISION_KEY = "dfkd_edge.precision"
AXES_BECAME_INPUT = {
    "ReduceMean": 18, "ReduceMax": 18, "ReduceMin": 18, "ReduceL2": 18, "ReduceProd": 18,
}  # fmt: skip


def activation_bounds(node: onnx.NodeProto, view: GraphView) -> tuple[float, float] | None:
    """Lowest and highest value that a ReLU or constant Clip lets pass; None for other nodes."""
    if node.op_type == "Relu":
        return 0.0, np.inf
    if node.op_type != "Clip":
        return None
    bounds = [-np.inf, np.inf]
    for index, name in enumerate(node.input[1:]):
        value = view.constant(name)
        if name and value is None:
            return None
        if value is not None:
            bounds[index] = float(value.item())
    return bounds[0], bounds[1]


def remove_attribute(node: onnx.NodeProto, name: str) -> None:
    """Drop an attribute if it is there."""
    kept = [item for item in node.attribute if item.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)


def drop_dead_nodes(model: onnx.ModelProto) -> None:
    """Remove nodes from which no output of the graph can be reached."""
    needed = {value.name for value in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))


def drop_unused_initializers(model: onnx.ModelProto) -> None:
    """Remove constants that no node reads."""
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def set_batch(model: onnx.ModelProto, batch: tuple[int, ...]) -> None:
    """Make the batch dimension a number, or the name `N` when several sizes are wanted."""
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        dim = value.type.tensor_type.shape.dim[0]
        dim.Clear()
        if len(batch) == 1:
            dim.dim_value = batch[0]
        else:
            dim.dim_param = "N"


def name_by_weights(model: onnx.ModelProto) -> None:
    """Name weighted nodes after their weights, as the student's modules are named."""
    view, taken = GraphView(model), set[str]()
    for node in model.graph.node:
        name = node.name or node.output[0]
        weight = node.input[1] if node.op_type in WEIGHTED else ""
        if weight in view.tensors and weight.endswith(".weight"):
            name = weight.removesuffix(".weight")
        while name in taken:
            name += "_again"
        taken.add(name)
        node.name = name


def restamp(model: onnx.ModelProto, opset: int, max_ir: int) -> None:
    """Lower the graph to an opset and stamp opset and IR version.

    Only operators that exist in the opset with the same meaning may remain: the caller checks the
    result against the opset's schemas and against the network.
    """
    _pool_globally(model)
    for node in list(model.graph.node):
        del node.metadata_props[:]
        if node.op_type == "Reshape" and _keeps_meaning_without_allowzero(model, node):
            remove_attribute(node, "allowzero")  # opset 13 has none
        if opset < AXES_BECAME_INPUT.get(node.op_type, 0):
            _axes_to_attribute(model, node)
        if node.op_type == "HardSwish" and opset < 14:
            _spell_hard_swish(model, node)
    for owner in (*model.graph.input, *model.graph.output, *model.graph.initializer, model.graph):
        del owner.metadata_props[:]
    drop_unused_initializers(model)
    del model.opset_import[:], model.functions[:]
    model.opset_import.append(helper.make_opsetid("", opset))
    del model.graph.value_info[:]
    oldest = helper.find_min_ir_version_for(list(model.opset_import))
    model.ir_version = max(min(max_ir, 10), oldest)
    model.producer_name, model.producer_version = "dfkd-edge", ""
    model.CopyFrom(onnx.shape_inference.infer_shapes(model, strict_mode=True))


def _pool_globally(model: onnx.ModelProto) -> None:
    """Write means over rows and columns as GlobalAveragePool, which INT8 kernels know."""
    view = GraphView(model)
    for node in model.graph.node:
        if node.op_type != "ReduceMean" or not attribute(node, "keepdims", 1):
            continue
        axes = attribute(node, "axes", None)
        if axes is None and len(node.input) > 1:
            constant = view.constant(node.input[1])
            axes = None if constant is None else constant.tolist()
        if axes is not None and sorted(axes) in ([-2, -1], [2, 3]):
            data = node.input[0]
            del node.attribute[:], node.input[:]
            node.input.append(data)
            node.op_type = "GlobalAveragePool"


def _keeps_meaning_without_allowzero(model: onnx.ModelProto, node: onnx.NodeProto) -> bool:
    shape = GraphView(model).constant(node.input[1])
    return not attribute(node, "allowzero", 0) or (shape is not None and bool(shape.all()))


def _axes_to_attribute(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    remove_attribute(node, "noop_with_empty_axes")
    if len(node.input) > 1:
        axes = GraphView(model).constant(node.input[1])
        if axes is not None:
            del node.input[1:]
            node.attribute.append(helper.make_attribute("axes", axes.tolist()))


def _spell_hard_swish(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    gate = f"{node.output[0]}_gate"
    sigmoid = helper.make_node(
        "HardSigmoid", [node.input[0]], [gate], name=f"{node.name}_gate", alpha=1 / 6, beta=0.5
    )
    model.graph.node.insert(list(model.graph.node).index(node), sigmoid)
    node.op_type = "Mul"
    node.input.append(gate)


def write_checked(model: onnx.ModelProto, precision: Precision, path: Path) -> None:
    """Stamp the precision where a reader of the file looks for it, check the graph and write it.

    Raises:
        ConversionError: it does not hold to the schemas of its opset.
    """
    for item in model.metadata_props:
        if item.key == PRECISION_KEY:
            item.value = precision
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        line = str(error).strip().splitlines()[0]
        raise ConversionError(
            f"the {precision} graph is not valid: {line}", where=str(path)
        ) from error
    atomic_write(path, model.SerializeToString())
