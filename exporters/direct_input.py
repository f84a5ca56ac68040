"""Feeds the image's own bytes to an asymmetric uint8 graph instead of normalising them first.

Normalisation with one mean and deviation is x * scale - shift, which is DequantizeLinear up to
the rounding of its zero point; that constant rest goes into the bias of the layers behind it
(borders, where padding is the zero point, keep it: half a grey level).
"""

from dataclasses import dataclass

import onnx
from onnx import helper

from dfkd_edge.conversion.graph_view import GraphView

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
    """Find the normalised image where convolutions alone read it; None where it differs."""
    image = view.graph.input[0].name
    for tensor, names in readers.items():
        chain = _chain_back(view, tensor)
        if chain is None or chain[-1].input[0] != image:
            continue
        scale, shift = view.constant(chain[1].input[1]), view.constant(chain[0].input[1])
        conv_only = {node.op_type for node in view.consumers[tensor]} == {"Conv"}
        complete = names == {node.name for node in view.consumers[tensor]}
        if scale is None or shift is None or scale.size != 1 or shift.size != 1:
            return None
        if not (conv_only and complete):
            return None
        zero_point = round(float(shift.item() / scale.item()))
        if not 0 <= zero_point <= 255:
            return None
        permutation = helper.get_attribute_value(chain[2].attribute[0])
        rest = float(scale.item()) * zero_point - float(shift.item())
        return DirectInput(tensor, image, tuple(permutation), float(scale.item()), zero_point, rest)
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
