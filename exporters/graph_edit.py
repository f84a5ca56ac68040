"""Small edits of ONNX graphs: batch, names, opset; and how they are written."""

from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from dfkd_edge.conversion.graph_view import PRECISION_KEY, WEIGHTED, GraphView, attribute
from dfkd_edge.errors import ConversionError
from dfkd_edge.files import atomic_write
from dfkd_edge.target_profiles.profile import Precision

FIRST_WITH_AXES_INPUT = 18  # Before, these operators have their axes as an attribute
FIRST_WITH_LAYER_NORM = 17
REDUCTIONS = ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceProd")


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


def drop_unread(model: onnx.ModelProto) -> None:
    """Remove nodes from which no output of the graph can be reached, and what nobody reads."""
    needed = {value.name for value in model.graph.output}
    nodes = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in needed]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(reversed(nodes))
    model.graph.initializer.extend(tensors)


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


def take_floats(model: onnx.ModelProto, name: str) -> None:
    """Make an input of bytes one of float32 with the same values: the Cast that read it goes."""
    graph = model.graph
    del graph.value_info[:]
    (value,) = (value for value in graph.input if value.name == name)
    value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    casts = [node for node in graph.node if node.op_type == "Cast" and node.input[0] == name]
    cast_to = {node.output[0] for node in casts}
    for node in casts:
        graph.node.remove(node)
    for node in graph.node:
        node.input[:] = [name if source in cast_to else source for source in node.input]


def name_by_weights(model: onnx.ModelProto) -> None:
    """Name weighted nodes after their weights, as the student's modules are named."""
    view, taken = GraphView(model), set[str]()
    for node in model.graph.node:
        name = node.name or node.output[0]
        weight = node.input[1] if node.op_type in WEIGHTED else ""
        if weight in view.tensors and weight.endswith(".weight"):
            name = weight.removesuffix(".weight")
        while name in taken:
            name += "_again"  # nodes that share a weight
        taken.add(name)
        node.name = name


def restamp(model: onnx.ModelProto, opset: int, max_ir: int) -> None:
    """Lower the graph to an opset and stamp opset and IR version.

    Only operators that exist in the opset with the same meaning may remain: the caller checks the
    result against the opset's schemas and against the network.
    """
    view = GraphView(model)
    for node in list(model.graph.node):
        del node.metadata_props[:]  # torch's stack traces, with paths of this host
        if node.op_type == "ReduceMean" and _is_over_rows_and_columns(node, view):
            del node.attribute[:], node.input[1:]
            node.op_type = "GlobalAveragePool"  # which INT8 kernels know
        if node.op_type == "Reshape" and _keeps_meaning_without_allowzero(node, view):
            remove_attribute(node, "allowzero")  # opset 13 has none
        if node.op_type in REDUCTIONS and opset < FIRST_WITH_AXES_INPUT:
            _axes_to_attribute(node, view)
        if node.op_type == "HardSwish" and opset < 14:
            _spell_hard_swish(model, node)
        if node.op_type == "Shape" and opset < 15:
            _spell_part_of_shape(model, node, view)
        if node.op_type == "LayerNormalization" and opset < FIRST_WITH_LAYER_NORM:
            _spell_layer_norm(model, node, view)
    for owner in (*model.graph.input, *model.graph.output, *model.graph.initializer, model.graph):
        del owner.metadata_props[:]
    drop_unread(model)
    del model.opset_import[:], model.functions[:]
    model.opset_import.append(helper.make_opsetid("", opset))
    del model.graph.value_info[:]
    oldest = helper.find_min_ir_version_for(list(model.opset_import))
    model.ir_version = max(min(max_ir, 10), oldest)  # ONNX Runtime 1.19 reads up to IR 10
    model.producer_name, model.producer_version = "dfkd-edge", ""
    model.CopyFrom(onnx.shape_inference.infer_shapes(model, strict_mode=True))


def _is_over_rows_and_columns(node: onnx.NodeProto, view: GraphView) -> bool:
    axes = attribute(node, "axes")
    if axes is None and len(node.input) > 1:
        constant = view.constant(node.input[1])
        axes = None if constant is None else constant.tolist()
    keeps = attribute(node, "keepdims", 1)
    return bool(keeps and axes is not None and sorted(axes) in ([-2, -1], [2, 3]))


def _keeps_meaning_without_allowzero(node: onnx.NodeProto, view: GraphView) -> bool:
    shape = view.constant(node.input[1])
    return not attribute(node, "allowzero", 0) or (shape is not None and bool(shape.all()))


def _axes_to_attribute(node: onnx.NodeProto, view: GraphView) -> None:
    remove_attribute(node, "noop_with_empty_axes")
    axes = view.constant(node.input[1]) if len(node.input) > 1 else None
    if axes is not None:
        del node.input[1:]
        node.attribute.append(helper.make_attribute("axes", axes.tolist()))


def _spell_hard_swish(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    gate = f"{node.output[0]}_gate"
    sigmoid = helper.make_node(
        "HardSigmoid", [node.input[0]], [gate], name=f"{node.name}_gate", alpha=1 / 6, beta=0.5
    )
    model.graph.node.insert(list(model.graph.node).index(node), sigmoid)
    node.op_type = "Mul"  # x * HardSigmoid(x): opset 14 brought HardSwish itself
    node.input.append(gate)


def _spell_part_of_shape(model: onnx.ModelProto, node: onnx.NodeProto, view: GraphView) -> None:
    """Cut a part of a shape out behind its Shape: opset 15 brought `start` and `end`."""
    start, end = attribute(node, "start", 0), attribute(node, "end", None)
    for name in ("start", "end"):
        remove_attribute(node, name)
    if start == 0 and end is None:
        return
    result, whole = node.output[0], f"{node.output[0]}_whole"
    bounds = (np.array([start]), np.array([np.iinfo(np.int64).max if end is None else end]))
    ends = [view.add_initializer(f"{result}_bound", bound.astype(np.int64)) for bound in bounds]
    cut = helper.make_node("Slice", [whole, *ends], [result], name=f"{node.name}_cut")
    node.output[0] = whole
    model.graph.node.insert(list(model.graph.node).index(node) + 1, cut)


def _spell_layer_norm(model: onnx.ModelProto, node: onnx.NodeProto, view: GraphView) -> None:
    """Write out (x - mean) / sqrt(variance + epsilon) * scale + bias; normalises the last axis."""
    if attribute(node, "axis", -1) != -1:
        return  # the checker refuses it: no student has one over several axes
    source, result, base = node.input[0], node.output[0], node.name or node.output[0]
    epsilon = np.array(attribute(node, "epsilon", 1e-5), np.float32)
    constant = view.add_initializer(f"{base}_epsilon", epsilon)
    steps = (
        ("ReduceMean", [source], "mean"),
        ("Sub", [source, f"{base}_mean"], "centred"),
        ("Mul", [f"{base}_centred", f"{base}_centred"], "squared"),
        ("ReduceMean", [f"{base}_squared"], "variance"),
        ("Add", [f"{base}_variance", constant], "raised"),
        ("Sqrt", [f"{base}_raised"], "deviation"),
        ("Div", [f"{base}_centred", f"{base}_deviation"], "unit"),
        ("Mul", [f"{base}_unit", node.input[1]], "scaled"),
        *((("Add", [f"{base}_scaled", node.input[2]], "shifted"),) if len(node.input) > 2 else ()),
    )
    nodes = [
        helper.make_node(op_type, inputs, [f"{base}_{name}"], f"{base}_{name}")
        for op_type, inputs, name in steps
    ]
    for made in nodes:
        if made.op_type == "ReduceMean":
            made.attribute.extend([helper.make_attribute("axes", [-1])])
    nodes[-1].output[0] = result
    place = list(model.graph.node).index(node)
    del model.graph.node[place]
    for made in reversed(nodes):
        model.graph.node.insert(place, made)


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
