"""Lint rules of quantization: how Q/DQ nodes must look, and where they belong.

TensorRT's demands are those of IQuantizeLayer in NvInfer.h and of onnx-tensorrt's importers;
placement follows NVIDIA's recommendations for explicit quantization. ONNX Runtime takes more:
uint8 activations with a zero point, and int32 biases.
"""

import numpy as np
from onnx import NodeProto, TensorProto

from dfkd_edge.conversion.graph_view import (
    DEQUANTIZE,
    MODEL,
    QUANTIZE,
    WEIGHTED,
    GraphView,
    Violations,
    argument,
    attribute,
    channel_axis,
    is_too_narrow,
    label,
)
from dfkd_edge.target_profiles.profile import TargetProfile

Q_OPERATORS = {"ConvInteger", "MatMulInteger", "DynamicQuantizeLinear", "QGemm", "QAttention"}


def check_qdq_format(view: GraphView, target: TargetProfile) -> Violations:
    """No QOperator format: TensorRT reads Q/DQ pairs only."""
    if target.backend != "tensorrt":
        return
    for node in view.every_node():
        if node.op_type in Q_OPERATORS or node.op_type.startswith("QLinear"):
            what = f"TensorRT does not read {node.op_type}: quantize with Q/DQ pairs"
            yield "error", label(node), what


def check_zero_point(view: GraphView, target: TargetProfile) -> Violations:
    """Zero points exist and are 0: ONNX takes a missing one as uint8, TensorRT as int8."""
    spec = target.quantization
    symmetric_activations = spec is None or spec.activation_symmetric
    for node in view.quantizers:
        if _is_bias(view, node):
            continue
        name = argument(node, 2)
        zero_point = view.constant(name)
        if not name:
            yield "error", label(node), "the zero point is left out: write it"
        elif zero_point is None:
            yield "error", label(node), "the zero point is no constant"
        elif (symmetric_activations or view.weight_of(node)) and np.any(zero_point != 0):
            yield "error", label(node), "the zero point is not 0: quantize symmetrically"


def check_scale(view: GraphView, target: TargetProfile) -> Violations:
    """Scales are constants above 0."""
    for node in view.quantizers:
        scale = view.constant(argument(node, 1))
        if scale is None:
            yield "error", label(node), "the scale is no constant"
        elif not np.all(np.isfinite(scale) & (scale > 0)):
            yield "error", label(node), "the scale is not a number above 0"


def check_activation_scales(view: GraphView, target: TargetProfile) -> Violations:
    """Activations have one scale a tensor; TensorRT's parser lets more pass, wrongly."""
    for node in view.quantizers:
        scale = view.constant(argument(node, 1))
        if scale is not None and scale.size != 1 and not view.weight_of(node):
            what = f"the activation has {scale.size} scales: one a tensor is all that runs"
            yield "error", label(node), what


def check_weight_scales(view: GraphView, target: TargetProfile) -> Violations:
    """Per-channel weight scales: on the output channel's axis, one each."""
    for node in view.quantizers:
        weight = view.constant(view.weight_of(node))
        scale = view.constant(argument(node, 1))
        if weight is None or scale is None or scale.size == 1:
            continue
        axis = attribute(node, "axis", 1)  # ONNX's default
        axis += weight.ndim if axis < 0 else 0
        length = weight.shape[axis] if 0 <= axis < weight.ndim else 0
        if scale.size != length:
            what = f"{scale.size} scales on axis {axis}, which has {length} entries"
            yield "error", label(node), what
        for reader in view.consumers[node.output[0]]:
            wanted = channel_axis(reader) if reader.op_type in WEIGHTED else axis
            if axis != wanted and scale.size == length:
                what = f"scales run along axis {axis}; {reader.op_type} needs axis {wanted}"
                yield "error", label(node), what


def check_int32_bias(view: GraphView, target: TargetProfile) -> Violations:
    """No int32 bias behind a DequantizeLinear: TensorRT's parser rejects it."""
    if target.quantization is not None and target.quantization.bias_dtype == "int32":
        return
    for node in view.quantizers:
        if _is_bias(view, node):
            yield "error", label(node), "int32 bias: keep biases in float32"


def check_quantized_type(view: GraphView, target: TargetProfile) -> Violations:
    """Quantized types are int8; uint8 too where ONNX Runtime runs the model."""
    on_tensorrt = target.backend == "tensorrt"
    allowed = {TensorProto.INT8} | (set() if on_tensorrt else {TensorProto.UINT8})
    for node in view.quantizers:
        data_type = _quantized_type(view, node)
        if data_type not in {*allowed, None} and not _is_bias(view, node):
            name = TensorProto.DataType.Name(data_type)
            what = f"quantizes to {name}: {target.backend} on {target.module} takes INT8"
            yield "error", label(node), what
    for info in view.inputs if on_tensorrt else ():
        if info.type.tensor_type.elem_type == TensorProto.UINT8:
            for node in view.consumers[info.name]:
                if node.op_type != "Cast":  # TensorRT refuses a Transpose of uint8, for one
                    what = f"{node.op_type} of a UINT8 input: Cast it to float first"
                    yield "error", label(node), what


def check_residual_add(view: GraphView, target: TargetProfile) -> Violations:
    """Residual adds: quantize the shortcut alone, so that Conv, Add and ReLU fuse."""
    if not _places_for_tensorrt(target):
        return
    for node in view.graph.node:
        if node.op_type != "Add" or any(name in view.tensors for name in node.input):
            continue
        is_branch = [view.is_quantized(_origin(view, name) or node) for name in node.input]
        is_dequantized = [view.made_by(name, DEQUANTIZE) is not None for name in node.input]
        if not any(is_branch):
            continue
        if all(is_dequantized):
            what = "both operands are quantized, so the Conv cannot fuse: leave its branch alone"
        elif not any(is_dequantized):
            what = "no operand is quantized: quantize the shortcut"
        elif not is_branch[1 - is_dequantized.index(True)]:
            what = "the Conv's branch is quantized instead of the shortcut"
        else:
            continue
        yield "warning", label(node), what


def check_concat_scales(view: GraphView, target: TargetProfile) -> Violations:
    """Inputs of a Concat share their scale, else each is requantized in a copy."""
    if not _places_for_tensorrt(target):
        return
    for node in view.graph.node:
        if node.op_type != "Concat":
            continue
        fed = [view.made_by(name, DEQUANTIZE) for name in node.input]
        scales = [view.constant(argument(dequantize, 1)) for dequantize in fed if dequantize]
        if len({scale.tobytes() for scale in scales if scale is not None}) > 1:
            what = "its inputs have different scales: give them the widest one"
            yield "warning", label(node), what


def check_narrow_conv(view: GraphView, target: TargetProfile) -> Violations:
    """Narrow convolutions stay in float: INT8 kernels want 16 channels (as ModelOpt does)."""
    if not _places_for_tensorrt(target):
        return
    for node in view.graph.node:
        weight = view.weight(node)
        if weight is None or not view.is_quantized(node) or not is_too_narrow(node, weight.shape):
            continue
        num_in = weight.shape[1] * attribute(node, "group", 1)
        what = f"{num_in} to {len(weight)} channels are too few for INT8: leave it in float"
        yield "warning", label(node), what


def check_no_int8_hardware(view: GraphView, target: TargetProfile) -> Violations:
    """No Q/DQ at all where the hardware has no INT8."""
    if "int8" in target.precisions or target.use_dla or not view.quantizers:
        return
    what = f"{len(view.quantizers)} Q/DQ nodes, first {label(view.quantizers[0])}"
    yield "error", MODEL, f"{what}; {target.no_int8_reason}"


def _places_for_tensorrt(target: TargetProfile) -> bool:
    return target.quantization is not None and not target.quantization.quantize_outputs


def _is_bias(view: GraphView, node: NodeProto) -> bool:
    tensor = view.tensors.get(argument(node, 0))
    return (
        node.op_type == DEQUANTIZE and tensor is not None and tensor.data_type == TensorProto.INT32
    )


def _quantized_type(view: GraphView, node: NodeProto) -> int | None:
    names = [argument(node, 2)] + ([node.input[0]] if node.op_type == DEQUANTIZE else [])
    for name in names:
        if name in view.tensors:
            return view.tensors[name].data_type
    return attribute(node, "output_dtype") if node.op_type == QUANTIZE else None


def _origin(view: GraphView, name: str) -> NodeProto | None:
    """What computed a tensor, seen through Q/DQ and the Add of a constant bias."""
    node = view.producers.get(name)
    if node is None:
        return None
    if node.op_type in (QUANTIZE, DEQUANTIZE):
        return _origin(view, node.input[0])
    computed = [n for n in node.input if view.is_activation(n)]
    if node.op_type == "Add" and len(computed) == 1:
        return _origin(view, computed[0])
    return node
