"""Checks an ONNX file against its target, without the target: every export passes through here.

Each rule is a function `(graph, target) -> violations`; its name is that of the table below. Those
here are about what runtime and hardware take at all: opset, operators and files.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from dfkd_edge.conversion import lint_quantization as quantization
from dfkd_edge.conversion.graph_view import (
    MODEL,
    PRECISION_KEY,
    GraphView,
    Severity,
    Violations,
    channel_axis,
    label,
    read_model,
)
from dfkd_edge.errors import ConversionError
from dfkd_edge.target_profiles.profile import TargetProfile

FIRST_SPARSE_SM = 80  # Ampere brought tensor cores that skip the zeros of 2:4 pruned weights
FIRST_INT64_TENSORRT = 9
DLA_OPS = {
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Sub", "Mul", "Max", "AveragePool"),
    *("MaxPool", "BatchNormalization", "Clip", "Concat", "Relu", "LeakyRelu", "LRN", "Sigmoid"),
    *("Tanh", "Slice", "Split", "Softmax", "Transpose", "Resize"),
    *("Constant", "Identity", "QuantizeLinear", "DequantizeLinear"),  # no layers of an engine
}
"""From operators/README.md of NVIDIA/Deep-Learning-Accelerator-SW."""


@dataclass(frozen=True, slots=True)
class LintFinding:
    """One place where a graph breaks a rule of its target."""

    rule: str  # A name of `RULES`
    severity: Severity
    node: str  # The node, or `(model)`
    message: str  # What is wrong and what to do


def check_opset(view: GraphView, target: TargetProfile) -> Violations:
    """Opset and IR are no newer than the target's parser."""
    opset, ir = view.opsets.get("ai.onnx", 1), view.model.ir_version
    if opset > target.max_opset:
        yield "error", MODEL, f"opset {opset}: {target.name} reads up to {target.max_opset}"
    if ir > target.max_ir:  # ONNX Runtime refuses newer ones; TensorRT's parser only logs them
        yield "error", MODEL, f"IR version {ir}: {target.name} reads up to {target.max_ir}"


def check_dla(view: GraphView, target: TargetProfile) -> Violations:
    """DLA: static shapes, its own operators, no Q/DQ before TensorRT 11."""
    if not target.use_dla:
        return
    for info in view.inputs:
        if any(not dim.HasField("dim_value") for dim in info.type.tensor_type.shape.dim):
            what = f"input {info.name} has a dynamic shape: the DLA needs a static one"
            yield "error", MODEL, what
    if target.typing == "weak" and view.quantizers:
        what = "the DLA takes no Q/DQ before TensorRT 11: export FP16"
        yield "error", label(view.quantizers[0]), what
    for node in view.graph.node:
        if node.op_type not in DLA_OPS:
            what = f"the DLA has no {node.op_type}: this node falls back to the GPU"
            yield "warning", label(node), what


def check_graph_precision(view: GraphView, target: TargetProfile) -> Violations:
    """The graph carries the precision that its metadata promise, where no flag can set it."""
    promised, has_qdq = view.metadata.get(PRECISION_KEY), bool(view.quantizers)
    if promised == "int8" and not has_qdq:
        yield "error", MODEL, "promises int8 but has no Q/DQ nodes"
    if target.typing != "strong" or view.carries_float16():
        return
    if promised == "fp16":
        what = "promises fp16 but carries none: TensorRT 11 has no --fp16, cast in the graph"
        yield "error", MODEL, what
    elif promised == "int8" and has_qdq:
        what = "its float layers will run in FP32, which may be slower than FP16 throughout"
        yield "warning", MODEL, what
    elif promised is None and not has_qdq:
        yield "warning", MODEL, "TensorRT 11 will run it in FP32 throughout"


def check_int64_border(view: GraphView, target: TargetProfile) -> Violations:
    """No INT64 at the border before TensorRT 9, which casts it to INT32."""
    if target.tensorrt is None or int(target.tensorrt.split(".")[0]) >= FIRST_INT64_TENSORRT:
        return
    for info in (*view.inputs, *view.graph.output):
        if info.type.tensor_type.elem_type == TensorProto.INT64:
            what = f"{info.name} is INT64: TensorRT {target.tensorrt} makes it INT32"
            yield "warning", MODEL, what


def check_graph_input(view: GraphView, target: TargetProfile) -> Violations:
    """Pixels enter in the type that the runtime reads: no UINT8 before TensorRT 8.5."""
    wanted = TensorProto.UINT8 if target.graph_input == "uint8" else TensorProto.FLOAT
    for info in view.inputs:
        found = info.type.tensor_type.elem_type
        if found == TensorProto.UINT8 != wanted:
            what = f"{info.name} is UINT8, which TensorRT {target.tensorrt} does not read"
            yield "error", MODEL, f"{what}: make it {target.graph_input}"


def check_sparse_weights(view: GraphView, target: TargetProfile) -> Violations:
    """2:4 pruned weights pay off from sm_80 on only."""
    if target.backend == "tensorrt" and (target.sm or 0) >= FIRST_SPARSE_SM:
        return
    for node in view.graph.node:
        if _is_2_4_sparse(view, node):
            what = "its weights are pruned 2:4, which cost accuracy and gain nothing on "
            yield "warning", label(node), what + target.module


def check_operators(view: GraphView, target: TargetProfile) -> Violations:
    """Every operator exists in the graph's opset, and the runtime knows its domain."""
    opset = view.opsets.get("ai.onnx", 1)
    is_tensorrt = target.backend == "tensorrt"
    local = {(function.domain, function.name) for function in view.model.functions}
    for node in view.every_node():
        if node.domain not in ("", "ai.onnx"):  # two names of the standard domain
            known = node.domain == "com.microsoft" or (node.domain, node.op_type) in local
            if is_tensorrt or not known:
                what = f"{target.backend} does not know {node.domain}.{node.op_type}"
                yield "error", label(node), what
        elif not _exists(node.op_type, opset):
            yield "error", label(node), f"ONNX opset {opset} has no operator {node.op_type}"
        elif node.op_type in target.unsupported_ops:
            yield "error", label(node), f"TensorRT {target.tensorrt} does not read {node.op_type}"


def check_one_file(view: GraphView, target: TargetProfile) -> Violations:
    """Weights are in the file itself: a bundle carries one file a model."""
    for tensor in view.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            yield "error", tensor.name, "the weight is in another file"


def _exists(op_type: str, opset: int) -> bool:
    try:  # the registry keeps what later opsets dropped, as Upsample, marked deprecated
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


RULES: Mapping[str, Callable[[GraphView, TargetProfile], Violations]] = {
    "opset": check_opset,
    "qdq-format": quantization.check_qdq_format,
    "zero-point": quantization.check_zero_point,
    "scale": quantization.check_scale,
    "activation-scales": quantization.check_activation_scales,
    "weight-scales": quantization.check_weight_scales,
    "int32-bias": quantization.check_int32_bias,
    "quantized-type": quantization.check_quantized_type,
    "residual-add": quantization.check_residual_add,
    "concat-scales": quantization.check_concat_scales,
    "narrow-conv": quantization.check_narrow_conv,
    "no-int8-hardware": quantization.check_no_int8_hardware,
    "dla": check_dla,
    "graph-precision": check_graph_precision,
    "graph-input": check_graph_input,
    "int64-border": check_int64_border,
    "sparse-weights": check_sparse_weights,
    "operators": check_operators,
    "one-file": check_one_file,
}


def lint_model(path: Path, target: TargetProfile) -> list[LintFinding]:
    """Run every rule on an ONNX file, in the order of the table.

    Raises:
        ConversionError: the file is no ONNX model.
    """
    view = GraphView(read_model(path))
    return [
        LintFinding(name, *found) for name, rule in RULES.items() for found in rule(view, target)
    ]


def refuse_errors(findings: Iterable[LintFinding], path: Path) -> None:
    """Stop when a finding is an error.

    Raises:
        ConversionError: names the first error's rule and node, and how many there are.
    """
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        first = errors[0]
        more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
        raise ConversionError(
            f"lint rule {first.rule} at {first.node}: {first.message}{more}", where=str(path)
        )
