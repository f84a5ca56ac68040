import dataclasses
import functools
import platform
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from dfkd_edge.exporters import runners
from dfkd_edge.exporters.int8_ptq import Int8Exporter
from dfkd_edge.exporters.runners import make_runner
from numpy.typing import NDArray
from onnx import TensorProto

from dfkd_edge.artifacts import ModelFile
from dfkd_edge.config.settings import ExportConfig
from dfkd_edge.conversion.graph_view import DEQUANTIZE, QUANTIZE, GraphView, attribute
from dfkd_edge.conversion.lint import lint_model
from dfkd_edge.errors import ConfigError, ConversionError
from dfkd_edge.interfaces import Calibration
from dfkd_edge.runtime.session import open_graph
from tests.exporters.conftest import DEPTHWISE, RESIDUAL, TENSORRT, Exported, make_target

NAMES = (DEPTHWISE, RESIDUAL)
CONFIG = ExportConfig(num_threads=1)
Make = Callable[..., tuple[ModelFile, ModelFile]]


@pytest.fixture(scope="module")
def calibrated(exported: Exported, images: NDArray[np.uint8]) -> Callable[..., Calibration]:
    @functools.cache
    def calibrate(name: str, spec: str) -> Calibration:
        args = (exported(name), images, make_target(spec), CONFIG)
        found: Calibration = Int8Exporter().calibrate(*args)
        return found

    return calibrate


@pytest.fixture(scope="module")
def quantized(
    exported: Exported,
    calibrated: Callable[..., Calibration],
    tmp_path_factory: pytest.TempPathFactory,
) -> Make:

    @functools.cache
    def make(
        name: str, spec: str, float_nodes: frozenset[str] = frozenset()
    ) -> tuple[ModelFile, ModelFile]:
        path = tmp_path_factory.mktemp("int8") / "model.int8.onnx"
        args = (calibrated(name, spec), make_target(spec), CONFIG, path, float_nodes)
        return exported(name), Int8Exporter().export(exported(name), *args)

    return make


@pytest.mark.parametrize("spec", ["tensorrt", "x86"])
@pytest.mark.parametrize("name", NAMES)
def test_int8_embeds_like_float32_in_half_of_the_bytes(
    name: str, spec: str, quantized: Make, images: NDArray[np.uint8]
) -> None:
    fp32, int8 = quantized(name, spec)
    before, after = (make_runner(model, 1)(images[:24]) for model in (fp32, int8))
    assert (before.embedding * after.embedding).sum(1).mean() > 0.97
    assert int8.size_bytes < 0.5 * fp32.size_bytes  # tiny networks: names and scales weigh more
    assert not np.isnan(after.logits).any()
    graph = onnx.load(int8.path).graph  # the text head stays float and named
    assert {t.name: t.data_type for t in graph.initializer}["text_head"] == TensorProto.FLOAT
    assert any("text_head" in node.input for node in graph.node)


def test_layers_without_a_bias_are_quantized_too(
    quantized: Make, images: NDArray[np.uint8]
) -> None:
    fp32, int8 = quantized("test_vit", "tensorrt")  # its layers are MatMul, an Add behind each
    assert int8.notes["num_int8_layers"] > 20
    assert not lint_model(int8.path, make_target("tensorrt"))
    before, after = (make_runner(model, 1)(images[:24]).embedding for model in (fp32, int8))
    assert (before * after).sum(1).mean() > 0.85  # of random weights, which attention amplifies


@pytest.mark.skipif(platform.machine() != "x86_64", reason="kernels of x86")
@pytest.mark.parametrize("spec", ["tensorrt", "x86"])
def test_int8_without_kernels_here_answers_as_its_graph_reads(
    spec: str, quantized: Make, images: NDArray[np.uint8]
) -> None:
    int8 = quantized(DEPTHWISE, spec)[1]
    timed, exact = make_runner(int8, 1), make_runner(int8, 1, for_answers=True)
    assert exact.computes_in_float == (spec == "tensorrt")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    literal = onnxruntime.InferenceSession(
        str(int8.path), options, providers=["CPUExecutionProvider"]
    )
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
        if node.op_type not in (QUANTIZE, DEQUANTIZE):
            continue
        scale, zero_point = (np.asarray(view.constant(name)) for name in node.input[1:])
        assert zero_point.dtype == np.int8
        assert not zero_point.any()
        assert (scale > 0).all()
        weight = view.constant(node.input[0])
        if weight is None:
            assert scale.ndim == 0
        else:
            assert weight.dtype == np.int8
            assert weight.min() >= -127
            assert scale.shape == (weight.shape[0],)
    for node in model.graph.node:
        if node.op_type == "Add":  # its shortcut alone is quantized
            (main,) = (m for n in node.input if (m := view.producers[n]).op_type != DEQUANTIZE)
            assert main.op_type == "Conv"
            assert ".downsample" not in main.name
        if node.op_type == "Conv":
            assert view.producers[node.input[0]].op_type == DEQUANTIZE
            assert np.asarray(view.constant(node.input[2])).dtype == np.float32


def optimised(model: ModelFile, folder: Path) -> Counter[str]:
    """Operators of the graph that ONNX Runtime makes of a model."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(model.path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)


@pytest.mark.parametrize("name", NAMES)
def test_onnxruntime_fuses_every_layer_of_an_x86_graph_and_few_of_one_for_tensorrt(
    name: str, quantized: Make, tmp_path: Path
) -> None:
    x86 = quantized(name, "x86")[1]
    counts = optimised(x86, tmp_path)
    num_convs = sum(node.op_type == "Conv" for node in onnx.load(x86.path).graph.node)
    assert counts["QLinearConv"] == num_convs
    assert counts["Conv"] + counts["FusedConv"] + counts["Add"] + counts[DEQUANTIZE] == 0
    counts = optimised(quantized(name, "tensorrt")[1], tmp_path)
    assert counts["Conv"] + counts["FusedConv"] > counts["QLinearConv"]


def test_weights_of_the_x86_graph_cannot_saturate_sixteen_bits(quantized: Make) -> None:
    view = GraphView(onnx.load(quantized(DEPTHWISE, "x86")[1].path))
    for node in view.graph.node:
        if node.op_type == "Conv" and attribute(node, "group", 1) == 1:
            weight = np.asarray(view.constant(view.producers[node.input[1]].input[0]))
            assert np.abs(weight.astype(int)).max() <= 64


def test_a_graph_for_wider_sums_is_judged_without_this_cpus_saturation(
    quantized: Make, images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    arm, x86 = (quantized(DEPTHWISE, spec)[1] for spec in ("arm", "x86"))
    monkeypatch.setattr(runners, "cpu_saturates", lambda: True)
    assert [runners.saturates_here(GraphView(onnx.load(m.path))) for m in (arm, x86)] == [1, 0]
    session = open_graph(str(arm.path), 1, in_float=True)
    exact = session.run(["logits"], {"image": images[:1]})[0]
    given = make_runner(arm, 1)(images[:1]).logits
    np.testing.assert_array_equal(given, exact)


def test_layers_named_float_stay_float(quantized: Make, exported: Exported) -> None:
    nodes = Int8Exporter().quantizable_nodes(exported(DEPTHWISE), TENSORRT)
    chosen = frozenset(nodes[2:4])
    _, int8 = quantized(DEPTHWISE, "tensorrt", chosen)
    view = GraphView(onnx.load(int8.path))
    for node in view.graph.node:
        if node.name in nodes:
            assert (node.input[1] in view.tensors) == (node.name in chosen)
    assert int8.notes["float_nodes"] == sorted(chosen)


@pytest.mark.parametrize("spec", ["tensorrt", "x86"])
def test_one_calibration_serves_whatever_layer_stays_float(
    spec: str, quantized: Make, exported: Exported
) -> None:
    stem, head, block = "backbone.conv1.0", "projection", "backbone.layer2.0"
    names = (stem, *(f"{block}.{layer}" for layer in ("conv1", "conv2", "downsample.1")), head)
    nodes = Int8Exporter().quantizable_nodes(exported(RESIDUAL), make_target(spec))
    assert set(names) <= set(nodes)
    for name in names:
        _, int8 = quantized(RESIDUAL, spec, frozenset({name}))
        assert int8.notes["float_nodes"] == [name]


def test_bias_correction_brings_the_embedding_nearer(
    quantized: Make,
    calibrated: Callable[..., Calibration],
    images: NDArray[np.uint8],
    tmp_path: Path,
) -> None:
    fp32, with_means = quantized(DEPTHWISE, "tensorrt")
    without = dataclasses.replace(calibrated(DEPTHWISE, "tensorrt"), channel_means={})
    worse = Int8Exporter().export(fp32, without, TENSORRT, CONFIG, tmp_path / "m.onnx")
    wanted, near, far = (make_runner(m, 1)(images).embedding for m in (fp32, with_means, worse))
    assert (near * wanted).sum(1).mean() > (far * wanted).sum(1).mean()


def test_a_target_without_int8_and_too_few_images_are_refused(
    exported: Exported, images: NDArray[np.uint8]
) -> None:
    reason = "Maxwell has no INT8"
    nano = dataclasses.replace(TENSORRT, quantization=None, no_int8_reason=reason)
    with pytest.raises(ConversionError, match=reason):
        Int8Exporter().calibrate(exported(DEPTHWISE), images, nano, CONFIG)
    with pytest.raises(ConfigError, match="too few"):
        Int8Exporter().calibrate(exported(DEPTHWISE), images[:10], TENSORRT, CONFIG)


def test_unknown_layers_and_foreign_calibrations_are_refused(
    exported: Exported, tmp_path: Path
) -> None:
    empty = Calibration({}, {}, "minmax", 64, "", 0.0, {})
    args = (exported(DEPTHWISE), empty, TENSORRT, CONFIG, tmp_path / "m.onnx")
    with pytest.raises(ConversionError, match="no such INT8 layer: nowhere"):
        Int8Exporter().export(*args, frozenset({"nowhere"}))
    with pytest.raises(ConversionError, match="calibration lacks"):
        Int8Exporter().export(*args)
