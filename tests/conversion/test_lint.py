"""Each rule finds the violation planted for it, alone; sound graphs pass."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from dfkd_edge.exporters.graph_edit import take_floats
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from dfkd_edge.conversion.lint import RULES, lint_model, refuse_errors
from dfkd_edge.errors import ConversionError
from dfkd_edge.target_profiles.lookup import load_target
from dfkd_edge.target_profiles.profile import TargetProfile

NetBuilder = Callable[..., ModelProto]
Plant = Callable[[ModelProto], None]
JETSON = load_target("jetson")
NANO = load_target("nano@jp4.6.6")
XAVIER = load_target("xavier-nx-8gb@jp5.1.6")
TENSORRT_11 = load_target("agx-orin-64gb@jp7.2.2-trt11")
X86, ARM = load_target("x86-cpu"), load_target("raspberry-pi-5")
DLA = replace(load_target("orin-nx-16gb@jp6.2"), use_dla=True)
NOT_ON_DLA = ("Cast_cast", "GlobalAveragePool_pool", "Flatten_features")
DLA_FALLBACKS = [("dla", "warning", name) for name in NOT_ON_DLA]


def node(model: ModelProto, name: str) -> NodeProto:
    found: NodeProto = next(n for n in model.graph.node if n.name == name)
    return found


def set_tensor(model: ModelProto, name: str, value: NDArray[np.generic]) -> None:
    tensor = next((t for t in model.graph.initializer if t.name == name), None)
    if tensor is None:
        tensor = model.graph.initializer.add()
    tensor.CopyFrom(numpy_helper.from_array(value, name))


def lint(model: ModelProto, target: TargetProfile, folder: Path) -> list[tuple[str, str, str]]:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return [(f.rule, f.severity, f.node) for f in lint_model(path, target)]


def constant_input(name: str, index: int, value: NDArray[np.generic]) -> Plant:
    def plant(model: ModelProto) -> None:
        set_tensor(model, "planted", value)
        node(model, name).input[index] = "planted"

    return plant


def floats(model: ModelProto) -> None:
    take_floats(model, "image")


def appended(op_type: str, inputs: list[str], *outputs: str, axis: int | None = None) -> Plant:
    extra = helper.make_node(op_type, inputs, outputs, outputs[0], axis=axis)
    return lambda model: model.graph.node.append(extra)


def changed_relu(field: str, value: str) -> Plant:
    return lambda model: setattr(node(model, "Relu_relu1"), field, value)


SUM_Q, SUM_DQ = "QuantizeLinear_sum_q", "DequantizeLinear_sum_dq"
WEIGHT_DQ = "DequantizeLinear_conv2_weight_dq"
ONE_SCALE = np.array(0.05, np.float32)
nonzero_zero_point = constant_input(SUM_Q, 2, np.array(3, np.int8))
zero_scale = constant_input(SUM_DQ, 1, ONE_SCALE * 0)
wrong_length = constant_input(WEIGHT_DQ, 1, ONE_SCALE.repeat(3))
uint8_quantize = constant_input(SUM_Q, 2, np.array(0, np.uint8))
HALF_ZEROS = np.tile(np.array([0, 1], np.float32), (16, 8))[..., None, None]
pruned = constant_input("Conv_conv2", 1, HALF_ZEROS)
qoperator = appended("DynamicQuantizeLinear", ["features"], "dynamic", "scale", "zero")
unsupported_op = appended("LayerNormalization", ["features", "conv2_bias"], "norm")
unknown_op = changed_relu("op_type", "Reloo")
op_of_a_later_opset = changed_relu("op_type", "Gelu")
custom_op = changed_relu("domain", "com.acme")


def newer_opset(model: ModelProto) -> None:
    model.opset_import[0].version = 21


def newer_ir(model: ModelProto) -> None:
    model.ir_version = 14


def missing_zero_point(model: ModelProto) -> None:
    del node(model, SUM_Q).input[2]


def computed_scale(model: ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("Abs", ["sum_scale"], ["computed"], "abs"))
    node(model, SUM_Q).input[1] = "computed"


def per_channel_activation(model: ModelProto) -> None:
    constant_input(SUM_Q, 1, ONE_SCALE.repeat(16))(model)
    set_tensor(model, "sum_zero", np.zeros(16, np.int8))


def wrong_axis(model: ModelProto) -> None:
    node(model, WEIGHT_DQ).attribute[0].i = 1


def int32_bias(model: ModelProto) -> None:
    set_tensor(model, "conv2_bias", np.zeros(16, np.int32))
    set_tensor(model, "bias_scale", ONE_SCALE.repeat(16))
    inputs = ["conv2_bias", "bias_scale"]
    bias = helper.make_node("DequantizeLinear", inputs, ["bias_dq"], "bias_dq", axis=0)
    model.graph.node.insert(0, bias)
    node(model, "Conv_conv2").input[2] = "bias_dq"


def uint8_transpose(model: ModelProto) -> None:
    cast, transpose = model.graph.node[0], model.graph.node[1]
    transpose.input[0], transpose.output[0] = "image", "turned"
    cast.input[0], cast.output[0] = "turned", "nchw"


def shortcut_in_float(model: ModelProto) -> None:
    node(model, "Add_sum").input[1] = "relu1"


def concat_of_two_scales(model: ModelProto) -> None:
    appended("Concat", ["relu1_dq", "nchw_dq"], "concat", axis=1)(model)
    set_tensor(model, "nchw_scale", ONE_SCALE * 10)


def dynamic_batch(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"


def int64_output(model: ModelProto) -> None:
    appended("ArgMax", ["logits"], "top1", axis=1)(model)
    model.graph.output.append(helper.make_tensor_value_info("top1", TensorProto.INT64, [1, 1]))


def weights_elsewhere(model: ModelProto) -> None:
    tensor = next(t for t in model.graph.initializer if t.name == "conv1_bias")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "weights.bin"


def promises(precision: str) -> Plant:
    return lambda model: helper.set_model_props(model, {"dfkd_edge.precision": precision})


def nothing(model: ModelProto) -> None:
    """Leave the graph sound."""


FP32: dict[str, bool] = {}
INT8 = {"int8": True}
QUANTIZED_BRANCH = INT8 | {"quantized_branch": True}
MODEL = "(model)"
PLANTED: list[tuple[dict[str, bool], Plant, TargetProfile, str, str, str]] = [
    (FP32, newer_opset, JETSON, "opset", "error", MODEL),
    (FP32, newer_ir, JETSON, "opset", "error", MODEL),
    (FP32, qoperator, JETSON, "qdq-format", "error", "dynamic"),
    (INT8, missing_zero_point, JETSON, "zero-point", "error", SUM_Q),
    (INT8, missing_zero_point, X86, "zero-point", "error", SUM_Q),
    (INT8, nonzero_zero_point, JETSON, "zero-point", "error", SUM_Q),
    (INT8, zero_scale, JETSON, "scale", "error", SUM_DQ),
    (INT8, computed_scale, JETSON, "scale", "error", SUM_Q),
    (INT8, per_channel_activation, JETSON, "activation-scales", "error", SUM_Q),
    (INT8, wrong_axis, JETSON, "weight-scales", "error", WEIGHT_DQ),
    (INT8, wrong_length, JETSON, "weight-scales", "error", WEIGHT_DQ),
    (INT8, int32_bias, JETSON, "int32-bias", "error", "bias_dq"),
    (INT8, uint8_quantize, JETSON, "quantized-type", "error", SUM_Q),
    (FP32, uint8_transpose, JETSON, "quantized-type", "error", "Transpose_nchw"),
    (INT8, shortcut_in_float, JETSON, "residual-add", "warning", "Add_sum"),
    (QUANTIZED_BRANCH, nothing, JETSON, "residual-add", "warning", "Add_sum"),
    (QUANTIZED_BRANCH, shortcut_in_float, JETSON, "residual-add", "warning", "Add_sum"),
    (INT8, concat_of_two_scales, JETSON, "concat-scales", "warning", "concat"),
    (INT8 | {"narrow": True}, nothing, JETSON, "narrow-conv", "warning", "Conv_narrower"),
    (INT8, floats, NANO, "no-int8-hardware", "error", MODEL),
    (FP32, nothing, NANO, "graph-input", "error", MODEL),
    (FP32, dynamic_batch, DLA, "dla", "error", MODEL),
    (FP32, promises("int8"), JETSON, "graph-precision", "error", MODEL),
    (FP32, promises("fp16"), TENSORRT_11, "graph-precision", "error", MODEL),
    (INT8, promises("int8"), TENSORRT_11, "graph-precision", "warning", MODEL),
    (FP32, nothing, TENSORRT_11, "graph-precision", "warning", MODEL),
    (FP32, int64_output, XAVIER, "int64-border", "warning", MODEL),
    (FP32, pruned, XAVIER, "sparse-weights", "warning", "Conv_conv2"),
    (FP32, pruned, X86, "sparse-weights", "warning", "Conv_conv2"),
    (FP32, unknown_op, JETSON, "operators", "error", "Relu_relu1"),
    (FP32, op_of_a_later_opset, JETSON, "operators", "error", "Relu_relu1"),
    (FP32, custom_op, JETSON, "operators", "error", "Relu_relu1"),
    (FP32, custom_op, X86, "operators", "error", "Relu_relu1"),
    (FP32, unsupported_op, XAVIER, "operators", "error", "norm"),
    (FP32, weights_elsewhere, JETSON, "one-file", "error", "conv1_bias"),
]


@pytest.mark.parametrize(("options", "plant", "target", "rule", "severity", "place"), PLANTED)
def test_a_planted_violation_is_found_by_its_rule_alone(
    tmp_path: Path,
    small_net: NetBuilder,
    options: dict[str, bool],
    plant: Plant,
    target: TargetProfile,
    rule: str,
    severity: str,
    place: str,
) -> None:
    model = small_net(**options)
    before = lint(model, JETSON, tmp_path) if options in (FP32, INT8) else []
    plant(model)
    found = [f for f in lint(model, target, tmp_path) if f not in DLA_FALLBACKS]
    assert found == [(rule, severity, place)]
    assert before == []


def test_every_rule_has_a_planted_violation() -> None:
    assert {row[3] for row in PLANTED} == set(RULES)


def test_the_dla_says_what_falls_back_and_takes_qdq_from_tensorrt_11_on(
    tmp_path: Path, small_net: NetBuilder
) -> None:
    assert lint(small_net(), DLA, tmp_path) == DLA_FALLBACKS
    refused = ("dla", "error", "QuantizeLinear_nchw_q")
    assert lint(small_net(int8=True), DLA, tmp_path) == [refused, *DLA_FALLBACKS]
    newer = replace(TENSORRT_11, use_dla=True)
    assert lint(small_net(int8=True), newer, tmp_path) == DLA_FALLBACKS


@pytest.mark.parametrize("target", [JETSON, XAVIER, ARM], ids=lambda t: t.module)
def test_sound_graphs_pass(tmp_path: Path, small_net: NetBuilder, target: TargetProfile) -> None:
    for precision in ("fp32", "int8"):
        model = small_net(int8=precision == "int8")
        promises(precision)(model)
        assert not lint(model, target, tmp_path)


@pytest.mark.parametrize("name", ["nano", "tx2", "t5000", "agx-orin-64gb@jp7.2.2-trt11", "x86-cpu"])
def test_a_float_graph_passes_everywhere(tmp_path: Path, small_net: NetBuilder, name: str) -> None:
    model = small_net()
    promises("fp32")(model)
    dynamic_batch(model)
    target = load_target(name)
    if target.graph_input == "float32":
        floats(model)
    assert not lint(model, target, tmp_path)


def test_onnx_runtime_takes_asymmetric_activations_and_int32_biases(
    tmp_path: Path, small_net: NetBuilder
) -> None:
    asymmetric, int32 = small_net(int8=True, asymmetric=True), small_net(int8=True)
    int32_bias(int32)
    assert not lint(asymmetric, X86, tmp_path)
    assert not lint(int32, X86, tmp_path)
    broken = {rule for rule, *_ in lint(asymmetric, JETSON, tmp_path)}
    assert broken == {"zero-point", "quantized-type", "residual-add"}


def test_weights_may_be_stored_quantized(tmp_path: Path, small_net: NetBuilder) -> None:
    model = small_net(int8=True)
    model.graph.node.remove(node(model, "QuantizeLinear_conv2_weight_q"))
    set_tensor(model, "conv2_weight_q", np.ones((16, 16, 1, 1), np.int8))
    assert not lint(model, JETSON, tmp_path)


def test_an_error_stops_an_export_and_names_rule_and_node_and_a_warning_does_not(
    tmp_path: Path, small_net: NetBuilder
) -> None:
    path = tmp_path / "model.onnx"
    model = small_net(int8=True)
    int32_bias(model)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ConversionError, match="lint rule int32-bias at bias_dq: int32 bias"):
        refuse_errors(lint_model(path, JETSON), path)
    path.write_bytes(small_net(int8=True, narrow=True).SerializeToString())
    refuse_errors(lint_model(path, JETSON), path)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07", None])
def test_a_file_that_is_no_model_is_refused_in_one_line(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConversionError, match=rf"^.*\({path}\)$"):
        lint_model(path, JETSON)


def test_the_small_graphs_are_valid_onnx(small_net: NetBuilder) -> None:
    for options in (FP32, INT8, INT8 | {"asymmetric": True}, QUANTIZED_BRANCH):
        onnx.checker.check_model(small_net(**options), full_check=True)
