"""Lint rules of opset, hardware, operators and files: what runtime and hardware take at all."""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto

from dfkd_edge.conversion.graph_view import (
    MODEL,
    GraphView,
    LintFinding,
    channel_axis,
    label,
)
from dfkd_edge.target_profiles.profile import TargetProfile

Findings = Iterator[LintFinding]
PRECISION_KEY = "dfkd_edge.precision"
FIRST_SPARSE_SM = 80  # Ampere brought tensor cores that skip the zeros of 2:4 pruned weights
FIRST_INT64_TENSORRT = 9
DLA_OPS = {
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Sub", "Mul", "Max", "AveragePool"),
    *("MaxPool", "BatchNormalization", "Clip", "Concat", "Relu", "LeakyRelu", "LRN", "Sigmoid"),
    *("Tanh", "Slice", "Split", "Softmax", "Transpose", "Resize"),
    *("Constant", "Identity", "QuantizeLinear", "DequantizeLinear"),  # no layers of an engine
}
"""From operators/README.md of NVIDIA/Deep-Learning-Accelerator-SW."""


def check_opset(view: GraphView, target: TargetProfile) -> Findings:
    """Opset and IR are no newer than the target's parser."""
    opset, ir = view.opsets.get("ai.onnx", 1), view.model.ir_version
    if opset > target.max_opset:
        what = f"opset {opset}: {target.name} reads up to {target.max_opset}"
        yield LintFinding("opset", "error", MODEL, what)
    if ir > target.max_ir:
        what = f"IR version {ir}: {target.name} reads up to {target.max_ir}"
        yield LintFinding("opset", "error", MODEL, what)


def check_dla(view: GraphView, target: TargetProfile) -> Findings:
    """DLA: static shapes, its own operators, no Q/DQ before TensorRT 11."""
    if not target.use_dla:
        return
    for info in view.inputs:
        if any(not dim.HasField("dim_value") for dim in info.type.tensor_type.shape.dim):
            what = f"input {info.name} has a dynamic shape: the DLA needs a static one"
            yield LintFinding("dla", "error", MODEL, what)
    if target.typing == "weak" and view.quantizers:
        what = "the DLA takes no Q/DQ before TensorRT 11: export FP16"
        yield LintFinding("dla", "error", label(view.quantizers[0]), what)
    for node in view.graph.node:
        if node.op_type not in DLA_OPS:
            what = f"the DLA has no {node.op_type}: this node falls back to the GPU"
            yield LintFinding("dla", "warning", label(node), what)


def check_graph_precision(view: GraphView, target: TargetProfile) -> Findings:
    """The graph carries the precision that its metadata promise, where no flag can set it."""
    promised, has_qdq = view.metadata.get(PRECISION_KEY), bool(view.quantizers)
    if promised == "int8" and not has_qdq:
        yield LintFinding("graph-precision", "error", MODEL, "promises int8 but has no Q/DQ nodes")
    if target.typing != "strong" or view.carries_float16():
        return
    if promised == "fp16":
        what = "promises fp16 but carries none: TensorRT 11 has no --fp16, cast in the graph"
        yield LintFinding("graph-precision", "error", MODEL, what)
    elif promised == "int8" and has_qdq:
        what = "its float layers will run in FP32, which may be slower than FP16 throughout"
        yield LintFinding("graph-precision", "warning", MODEL, what)
    elif promised is None and not has_qdq:
        yield LintFinding(
            "graph-precision", "warning", MODEL, "TensorRT 11 will run it in FP32 throughout"
        )


def check_int64_border(view: GraphView, target: TargetProfile) -> Findings:
    """No INT64 at the border before TensorRT 9, which casts it to INT32."""
    if target.tensorrt is None or int(target.tensorrt.split(".")[0]) >= FIRST_INT64_TENSORRT:
        return
    for info in (*view.inputs, *view.graph.output):
        if info.type.tensor_type.elem_type == TensorProto.INT64:
            what = f"{info.name} is INT64: TensorRT {target.tensorrt} makes it INT32"
            yield LintFinding("int64-border", "warning", MODEL, what)


def check_sparse_weights(view: GraphView, target: TargetProfile) -> Findings:
    """2:4 pruned weights pay off from sm_80 on only."""
    if target.backend == "tensorrt" and (target.sm or 0) >= FIRST_SPARSE_SM:
        return
    for node in view.graph.node:
        if _is_2_4_sparse(view, node):
            what = "its weights are pruned 2:4, which cost accuracy and gain nothing on "
            yield LintFinding("sparse-weights", "warning", label(node), what + target.module)


def check_operators(view: GraphView, target: TargetProfile) -> Findings:
    """Every operator exists in the graph's opset, and the runtime knows its domain."""
    opset = view.opsets.get("ai.onnx", 1)
    is_tensorrt = target.backend == "tensorrt"
    local = {(function.domain, function.name) for function in view.model.functions}
    for node in view.every_node():
        if node.domain not in ("", "ai.onnx"):
            known = node.domain == "com.microsoft" or (node.domain, node.op_type) in local
            if is_tensorrt or not known:
                what = f"{target.backend} does not know {node.domain}.{node.op_type}"
                yield LintFinding("operators", "error", label(node), what)
        elif not _exists(node.op_type, opset):
            what = f"ONNX opset {opset} has no operator {node.op_type}"
            yield LintFinding("operators", "error", label(node), what)
        elif node.op_type in target.unsupported_ops:
            what = f"TensorRT {target.tensorrt} does not read {node.op_type}"
            yield LintFinding("operators", "error", label(node), what)


def check_one_file(view: GraphView, target: TargetProfile) -> Findings:
    """Weights are in the file itself: a bundle carries one file a model."""
    for tensor in view.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            yield LintFinding("one-file", "error", tensor.name, "the weight is in another file")


def _exists(op_type: str, opset: int) -> bool:
    try:
        return not onnx.defs.get_schema(op_type, opset, "").deprecated
    except onnx.defs.SchemaError:
        return False


def _is_2_4_sparse(view: GraphView, node: onnx.NodeProto) -> bool:
    """Whether of every four weights along the input channels at least two are zero."""
    weight = view.weight(node)
    if weight is None or weight.ndim < 2 or not np.any(weight):
        return False
    by_input = np.moveaxis(weight, 1 - channel_axis(node), -1)
    if by_input.shape[-1] % 4:
        return False
    return bool(np.all(np.count_nonzero(by_input.reshape(-1, 4), axis=1) <= 2))
