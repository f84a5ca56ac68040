from __future__ import annotations

import dataclasses
import platform
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import onnxruntime as ort
import pytest
from dfkd_edge.exporters import runners
from dfkd_edge.exporters.calibration import Calibration
from dfkd_edge.exporters.graph_edit import GraphView, attribute
from dfkd_edge.exporters.int8_ptq import Int8Exporter
from dfkd_edge.exporters.runners import OnnxRuntimeRunner
from numpy.typing import NDArray

from dfkd_edge.artifacts import ModelFile
from dfkd_edge.config.settings import ExportConfig
from dfkd_edge.errors import ConfigError, ConversionError
from dfkd_edge.target_profiles.profile import TargetProfile

NAMES = ("mobilenetv2_035", "resnet10t")
CONFIG = ExportConfig(num_threads=1)
Make = Callable[..., tuple[ModelFile, ModelFile]]


@pytest.fixture(scope="module")
def quantized(
    exported: Callable[..., ModelFile],
    target: Callable[..., TargetProfile],
    images: NDArray[np.uint8],
    tmp_path_factory: pytest.TempPathFactory,
) -> Make:
    calibrations: dict[tuple[str, str], Calibration] = {}

    def make(name: str, spec: str, float_nodes: frozenset[str] = frozenset()) -> object:
        fp32, profile = exported(name), target(spec)
        if (name, spec) not in calibrations:
            calibrations[name, spec] = Int8Exporter().calibrate(fp32, images, profile, CONFIG)
        path = tmp_path_factory.mktemp("int8") / "model.int8.onnx"
        args = (calibrations[name, spec], profile, CONFIG, path, float_nodes)
        return fp32, Int8Exporter().export(fp32, *args)

    return make  # type: ignore[return-value]


@pytest.mark.parametrize("spec", ["tensorrt", "x86"])
@pytest.mark.parametrize("name", NAMES)
def test_int8_embeds_like_float32_in_a_third_of_the_bytes(
    name: str, spec: str, quantized: Make, images: NDArray[np.uint8]
) -> None:
    fp32, int8 = quantized(name, spec)
    before, after = (OnnxRuntimeRunner(model, 1)(images[:24]) for model in (fp32, int8))
    assert (before.embedding * after.embedding).sum(1).mean() > 0.97
    assert int8.size_bytes < 0.45 * fp32.size_bytes  # tiny networks: names and scales weigh more
    assert not np.isnan(after.logits).any()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="kernels of x86")
@pytest.mark.parametrize("spec", ["tensorrt", "x86"])
def test_int8_without_kernels_here_answers_as_its_graph_reads(
    spec: str, quantized: Make, images: NDArray[np.uint8]
) -> None:
    int8 = quantized(NAMES[0], spec)[1]
    timed, exact = OnnxRuntimeRunner(int8, 1), OnnxRuntimeRunner(int8, 1, for_answers=True)
    assert exact.computes_in_float == (spec == "tensorrt")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    literal = ort.InferenceSession(str(int8.path), options, providers=["CPUExecutionProvider"])
    wanted = np.concatenate(
        [literal.run(["embedding"], {"image": image[None]})[0] for image in images[:24]]
    )
    near, exactly_near = (
        (runner(images[:24]).embedding * wanted).sum(1).mean() for runner in (timed, exact)
    )
    assert exactly_near > near - 1e-3
    assert exactly_near > 0.97


@pytest.mark.parametrize("name", NAMES)
def test_tensorrt_graphs_hold_to_its_rules(name: str, quantized: Make) -> None:
    model = onnx.load(quantized(name, "tensorrt")[1].path)
    view = GraphView(model)
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        zero_point = view.constant(node.input[2])
        assert zero_point is not None
        assert zero_point.dtype == np.int8
        assert not zero_point.any()
        scale = view.constant(node.input[1])
        assert scale is not None
        assert (scale > 0).all()
        weight = view.constant(node.input[0])
        if weight is None:
            assert scale.ndim == 0
        else:
            assert weight.dtype == np.int8
            assert weight.min() >= -127
            assert scale.shape == (weight.shape[0],)
    for node in model.graph.node:
        if node.op_type == "Add":
            sources = [view.producer[name].op_type for name in node.input]
            assert Counter(sources)["DequantizeLinear"] == 1, node.name
        if node.op_type == "Conv":
            assert view.producer[node.input[0]].op_type == "DequantizeLinear"
            bias = view.constant(node.input[2])
            assert bias is not None
            assert bias.dtype == np.float32


def test_only_the_shortcut_of_a_residual_add_is_quantized(quantized: Make) -> None:
    view = GraphView(onnx.load(quantized("resnet10t", "tensorrt")[1].path))
    for node in view.graph.node:
        if node.op_type == "Add":
            main = next(n for n in node.input if view.producer[n].op_type != "DequantizeLinear")
            assert view.producer[main].op_type == "Conv"
            assert ".conv2" in view.producer[main].name


def test_the_text_head_stays_float_and_named(quantized: Make) -> None:
    for spec in ("tensorrt", "x86"):
        model = onnx.load(quantized(NAMES[0], spec)[1].path)
        head = next(t for t in model.graph.initializer if t.name == "text_head")
        assert head.data_type == onnx.TensorProto.FLOAT
        assert any("text_head" in node.input for node in model.graph.node)


@pytest.mark.parametrize("name", NAMES)
def test_onnxruntime_fuses_every_layer_of_an_x86_graph(
    name: str, quantized: Make, tmp_path: Path
) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    path = quantized(name, "x86")[1].path
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    counts = Counter(n.op_type for n in onnx.load(tmp_path / "optimised.onnx").graph.node)
    num_convs = sum(n.op_type == "Conv" for n in onnx.load(path).graph.node)
    assert counts["QLinearConv"] == num_convs
    assert counts["Conv"] + counts["FusedConv"] + counts["Add"] + counts["DequantizeLinear"] == 0


@pytest.mark.parametrize("name", NAMES)
def test_onnxruntime_computes_most_layers_of_a_graph_for_tensorrt_in_float(
    name: str, quantized: Make, tmp_path: Path
) -> None:
    _, int8 = quantized(name, "tensorrt")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(int8.path), options, providers=["CPUExecutionProvider"])
    counts = Counter(n.op_type for n in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert counts["Conv"] + counts["FusedConv"] > counts["QLinearConv"]


def test_weights_of_the_x86_graph_cannot_saturate_sixteen_bits(quantized: Make) -> None:
    view = GraphView(onnx.load(quantized(NAMES[0], "x86")[1].path))
    for node in view.graph.node:
        if node.op_type == "Conv" and attribute(node, "group", 1) == 1:
            weight = view.constant(view.producer[node.input[1]].input[0])
            assert weight is not None
            assert np.abs(weight.astype(int)).max() <= 64


def test_a_graph_for_wider_sums_is_judged_without_this_cpus_saturation(
    quantized: Make, images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, arm = quantized(NAMES[0], "arm")
    _, x86 = quantized(NAMES[0], "x86")
    monkeypatch.setattr(runners, "cpu_saturates", lambda: True)
    assert runners.saturates_here(arm.path)
    assert not runners.saturates_here(x86.path)
    session = runners.make_session(str(arm.path), 1, in_float=True)
    exact = session.run(["logits"], {"image": images[:1]})[0]
    given = OnnxRuntimeRunner(arm, 1)(images[:1]).logits
    np.testing.assert_array_equal(given, exact)


def test_layers_named_float_stay_float(
    quantized: Make, target: Callable[..., TargetProfile]
) -> None:
    fp32, _ = quantized(NAMES[0], "tensorrt")
    nodes = Int8Exporter().quantizable_nodes(fp32, target("tensorrt"))
    chosen = frozenset(nodes[2:4])
    _, int8 = quantized(NAMES[0], "tensorrt", chosen)
    view = GraphView(onnx.load(int8.path))
    for node in view.graph.node:
        if node.name in nodes:
            assert (node.input[1] in view.initializers) == (node.name in chosen)
    assert int8.notes["float_nodes"] == sorted(chosen)


@pytest.mark.parametrize("spec", ["tensorrt", "x86"])
def test_one_calibration_serves_whatever_layer_stays_float(
    spec: str, quantized: Make, target: Callable[..., TargetProfile]
) -> None:
    fp32, _ = quantized("resnet10t", spec)
    stem, head, block = "backbone.conv1.0", "projection", "backbone.layer2.0"
    names = (stem, *(f"{block}.{layer}" for layer in ("conv1", "conv2", "downsample.1")), head)
    assert set(names) <= set(Int8Exporter().quantizable_nodes(fp32, target(spec)))
    for name in names:
        _, int8 = quantized("resnet10t", spec, frozenset({name}))
        assert int8.notes["float_nodes"] == [name]


def test_bias_correction_brings_the_embedding_nearer(
    exported: Callable[..., ModelFile],
    target: Callable[..., TargetProfile],
    images: NDArray[np.uint8],
    tmp_path: Path,
) -> None:
    fp32, profile = exported(NAMES[0]), target("tensorrt")
    with_means = Int8Exporter().calibrate(fp32, images, profile, CONFIG)
    without = dataclasses.replace(with_means, channel_means={})
    wanted = OnnxRuntimeRunner(fp32, 1)(images).embedding
    distance = []
    for number, calibration in enumerate((with_means, without)):
        path = tmp_path / f"{number}.onnx"
        model = Int8Exporter().export(fp32, calibration, profile, CONFIG, path)
        distance.append(1 - (OnnxRuntimeRunner(model, 1)(images).embedding * wanted).sum(1).mean())
    assert distance[0] < distance[1]


def test_a_target_without_int8_says_why(
    exported: Callable[..., ModelFile],
    target: Callable[..., TargetProfile],
    images: NDArray[np.uint8],
) -> None:
    nano = dataclasses.replace(
        target("tensorrt"), quantization=None, no_int8_reason="Maxwell has no INT8"
    )
    with pytest.raises(ConversionError, match="Maxwell has no INT8"):
        Int8Exporter().calibrate(exported(NAMES[0]), images, nano, CONFIG)


def test_too_few_images_are_refused(
    exported: Callable[..., ModelFile],
    target: Callable[..., TargetProfile],
    images: NDArray[np.uint8],
) -> None:
    with pytest.raises(ConfigError, match="too few"):
        Int8Exporter().calibrate(exported(NAMES[0]), images[:10], target("tensorrt"), CONFIG)


def test_unknown_layers_and_foreign_calibrations_are_refused(
    exported: Callable[..., ModelFile], target: Callable[..., TargetProfile], tmp_path: Path
) -> None:
    empty = Calibration({}, {}, "minmax", 64, "", 0.0, {})
    args = (exported(NAMES[0]), empty, target("tensorrt"), CONFIG, tmp_path / "m.onnx")
    with pytest.raises(ConversionError, match="no such INT8 layer: nowhere"):
        Int8Exporter().export(*args, frozenset({"nowhere"}))
    with pytest.raises(ConversionError, match="calibration lacks"):
        Int8Exporter().export(*args)
