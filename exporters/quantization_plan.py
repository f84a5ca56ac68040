"""Which tensors of a graph become eight bits wide, and who reads them so.

TensorRT (its explicit-quantization guide): every input of a weighted layer, the shortcut of a
residual Add alone (so that Conv + Add + ReLU stay one kernel) and the input of a pool; outputs of
weighted layers stay float. ONNX Runtime makes a QLinearConv only where the output is quantized
too: there whole chains are.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import onnx

from dfkd_edge.conversion.graph_view import WEIGHTED, GraphView, is_too_narrow
from dfkd_edge.target_profiles.profile import QuantizationSpec

from .onnx_graph import TEXT_HEAD

FUSED_ACTIVATIONS = ("Relu", "Clip")  # Runtimes fold them into the layer before; Q goes behind them
SHAPE_ONLY = ("MaxPool", "Flatten", "Reshape", "Squeeze")
"""Values pass unchanged: input and output share one range."""
CHAINED = ("Add", "GlobalAveragePool", "AveragePool", *SHAPE_ONLY)
"""Besides weighted layers, what ONNX Runtime computes in eight bits."""
POOLS = ("GlobalAveragePool", "AveragePool")


@dataclass(slots=True)
class QuantizationPlan:
    """The decisions for one graph."""

    weighted: list[onnx.NodeProto] = field(default_factory=list)  # Layers whose weights become INT8
    readers: dict[str, set[str]] = field(default_factory=dict)
    """Quantized tensor to the names of the nodes that read it dequantized."""
    same_range: dict[str, str] = field(default_factory=dict)
    """Tensor to the tensor whose range it takes."""

    def read(self, tensor: str, node: onnx.NodeProto) -> None:
        """Note that a node reads a tensor through Q/DQ."""
        self.readers.setdefault(tensor, set()).add(node.name)


def weighted_nodes(view: GraphView, spec: QuantizationSpec) -> list[onnx.NodeProto]:
    """Layers worth quantizing; the text head stays float, so that classes can be swapped."""
    return [
        node
        for node in view.graph.node
        if node.op_type in WEIGHTED
        and node.input[1] in view.tensors
        and node.input[1] != TEXT_HEAD
        and view.is_activation(node.input[0])
        and (spec.quantize_outputs or not is_too_narrow(node, view.tensors[node.input[1]].dims))
    ]


def plan_quantization(
    view: GraphView, spec: QuantizationSpec, float_nodes: Iterable[str] = ()
) -> QuantizationPlan:
    """Decide for a graph; layers named in `float_nodes` stay float."""
    kept = frozenset(float_nodes)
    plan = QuantizationPlan([n for n in weighted_nodes(view, spec) if n.name not in kept])
    for node in plan.weighted:
        plan.read(node.input[0], node)
    if spec.quantize_outputs:
        _chain(view, plan, kept)
    else:
        _shortcuts_and_pools(view, plan)
    return plan


def _shortcuts_and_pools(view: GraphView, plan: QuantizationPlan) -> None:
    depth = view.depth()
    quantized = {node.name for node in plan.weighted}
    for node in view.graph.node:
        if node.op_type == "Add" and all(view.is_activation(name) for name in node.input):
            main, shortcut = _branches(node, view, depth)
            maker = view.producers.get(main)
            if maker is not None and maker.name in quantized:
                plan.read(shortcut, node)
        elif node.op_type in POOLS and _feeds(node, quantized, view):
            plan.read(node.input[0], node)


def _branches(node: onnx.NodeProto, view: GraphView, depth: dict[str, int]) -> tuple[str, str]:
    """Long branch and shortcut of an Add, whichever layers stay float: ranges are measured once.

    The long branch ends in a weighted layer; where both or none do, it is the deeper one.
    """

    def rank(name: str) -> tuple[bool, int]:
        maker = view.producers.get(name)
        return maker is not None and maker.op_type in WEIGHTED, depth[name]

    shortcut, main = sorted(node.input, key=rank)
    return main, shortcut


def _feeds(node: onnx.NodeProto, quantized: set[str], view: GraphView) -> bool:
    """Whether a pool's output reaches a quantized layer through reshaping alone."""
    readers = view.consumers[node.output[0]]
    return any(
        reader.name in quantized
        or (reader.op_type in SHAPE_ONLY and _feeds(reader, quantized, view))
        for reader in readers
    )


def _chain(view: GraphView, plan: QuantizationPlan, kept: frozenset[str]) -> None:
    """Quantize outputs too, and everything between the first and the last weighted layer."""
    quantized = {node.name for node in plan.weighted}
    alive = _before_last_layer(view, quantized)
    for node in view.graph.node:
        if node.name not in quantized and not _can_chain(node, view, plan, kept):
            continue
        for name in node.input:
            if name in plan.readers or (node.op_type == "Add" and view.is_activation(name)):
                plan.read(name, node)
        output = _after_activation(node, view)
        if output in alive:
            for reader in view.consumers[output]:
                plan.read(output, reader)
            if node.op_type in SHAPE_ONLY:
                plan.same_range[output] = node.input[0]


def _can_chain(
    node: onnx.NodeProto, view: GraphView, plan: QuantizationPlan, kept: frozenset[str]
) -> bool:
    if node.op_type not in CHAINED or node.name in kept:
        return False
    if node.op_type == "Add":
        return all(view.is_activation(name) for name in node.input) and any(
            name in plan.readers for name in node.input
        )
    return node.input[0] in plan.readers


def _after_activation(node: onnx.NodeProto, view: GraphView) -> str:
    output = str(node.output[0])
    readers = view.consumers[output]
    if len(readers) == 1 and readers[0].op_type in FUSED_ACTIVATIONS and node.op_type != "MaxPool":
        return str(readers[0].output[0])
    return output


def _before_last_layer(view: GraphView, quantized: set[str]) -> set[str]:
    """Tensors from which a quantized layer can still be reached."""
    alive: set[str] = set()
    for node in reversed(view.graph.node):
        if node.name in quantized or alive.intersection(node.output):
            alive.update(name for name in node.input if view.is_activation(name))
    return alive
