"""The same network behind another input: what it answers, and what it takes."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from dfkd_edge.exporters.graph_variant import GraphVariantExporter
from dfkd_edge.exporters.int8_ptq import Int8Exporter
from dfkd_edge.exporters.onnx_graph import smooth_images
from dfkd_edge.exporters.tensorrt_oracle import TensorRtOracle
from numpy.typing import NDArray

from dfkd_edge.artifacts import ModelFile
from dfkd_edge.config.settings import ExportConfig
from dfkd_edge.conversion.lint import lint_model
from dfkd_edge.errors import ConversionError
from dfkd_edge.handover.request import as_handed
from dfkd_edge.runtime.confidence import Confidence
from dfkd_edge.runtime.session import open_graph
from dfkd_edge.target_profiles.profile import Feed
from tests.conftest import tiny_images, write_tiny_graph
from tests.exporters.conftest import DEPTHWISE, RESIDUAL, TENSORRT, Exported

TEMPERATURE = 3.0


def answers(path: Path, image: NDArray[Any], output: str) -> NDArray[Any]:
    session = open_graph(str(path), 1, in_float=True)
    rows = [session.run([output], {"image": row[None]})[0] for row in image]
    return np.concatenate(rows)


def wanted(model: ModelFile, images: NDArray[np.uint8]) -> NDArray[Any]:
    return Confidence(TEMPERATURE).probabilities(answers(model.path, images, "logits"))


def variant(model: ModelFile, feed: Feed, folder: Path) -> ModelFile:
    path = folder / "variant.onnx"
    made: ModelFile = GraphVariantExporter().export(model, feed, TEMPERATURE, path)
    return made


@pytest.mark.parametrize("feed", ["planes", "imagenet"])
@pytest.mark.parametrize("name", [DEPTHWISE, RESIDUAL])
def test_a_variant_answers_as_the_graph_that_it_is_made_of_in_float_and_in_int8(
    name: str, feed: Feed, exported: Exported, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    fp32 = exported(name)
    config = ExportConfig(num_threads=1)
    calibration = Int8Exporter().calibrate(fp32, smooth_images(64, 64, seed=4), TENSORRT, config)
    int8 = Int8Exporter().export(fp32, calibration, TENSORRT, config, tmp_path / "int8.onnx")
    for model in (fp32, int8):
        made = variant(model, feed, tmp_path)
        seen = answers(made.path, as_handed(images[:8], feed, "float32"), "probabilities")
        limit = 1e-4 if model is fp32 else 0.02
        np.testing.assert_allclose(seen, wanted(model, images[:8]), atol=limit)
        assert np.array_equal(seen.argmax(1), wanted(model, images[:8]).argmax(1))


def test_a_variant_has_one_float_input_of_planes_one_output_and_no_node_that_only_turns_pixels(
    exported: Exported, tmp_path: Path
) -> None:
    fp32 = exported(DEPTHWISE)
    graph = onnx.load(variant(fp32, "planes", tmp_path).path)
    (value,), (output,) = graph.graph.input, graph.graph.output
    assert (value.name, output.name) == ("image", "probabilities")
    assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert [d.dim_value for d in value.type.tensor_type.shape.dim][1:] == [3, 64, 64]
    assert not {"Cast", "Transpose"} & {node.op_type for node in graph.graph.node}
    properties = {item.key: item.value for item in graph.metadata_props}
    assert '"NCHW"' in properties["dfkd_edge.preprocess"]
    assert not [f for f in lint_model(tmp_path / "variant.onnx", TENSORRT) if f.severity == "error"]


@pytest.mark.parametrize("feed", ["planes", "imagenet"])
def test_a_graph_that_works_on_pixels_first_gets_them_back(feed: Feed, tmp_path: Path) -> None:
    write_tiny_graph(tmp_path / "tiny.onnx", swaps_channels=True)
    model = ModelFile(tmp_path / "tiny.onnx", "onnx", "fp32", {})
    made = variant(model, feed, tmp_path)
    images = tiny_images()
    seen = answers(made.path, as_handed(images, feed, "float32"), "probabilities")
    np.testing.assert_allclose(seen, wanted(model, images), atol=1e-4)


def test_a_variant_of_pixels_keeps_the_input_and_one_output(tmp_path: Path) -> None:
    write_tiny_graph(tmp_path / "tiny.onnx")
    model = ModelFile(tmp_path / "tiny.onnx", "onnx", "fp32", {})
    made = variant(model, "pixels", tmp_path)
    before, after = (onnx.load(path).graph for path in (model.path, made.path))
    assert list(after.input) == list(before.input)
    assert [output.name for output in after.output] == ["probabilities"]
    images = tiny_images()
    seen = answers(made.path, as_handed(images, "pixels", "uint8"), "probabilities")
    np.testing.assert_allclose(seen, wanted(model, images), atol=1e-4)


def test_the_wrong_normalisation_shows(
    exported: Exported, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    fp32 = exported(DEPTHWISE)
    made = variant(fp32, "imagenet", tmp_path)
    levels = as_handed(images[:8], "planes", "float32")
    seen = answers(made.path, levels, "probabilities")
    assert np.abs(seen - wanted(fp32, images[:8])).max() > 0.01


def test_a_foreign_graph_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.onnx"
    write_tiny_graph(path)
    graph = onnx.load(path)
    graph.graph.node.pop()  # the softmax
    onnx.save(graph, path)
    with pytest.raises(ConversionError, match="graph is none of ours"):
        variant(ModelFile(path, "onnx", "fp32", {}), "planes", tmp_path)


@pytest.mark.skipif(not TensorRtOracle().available(), reason="the extra `oracle` is not installed")
@pytest.mark.parametrize("feed", ["planes", "imagenet"])
def test_the_oracle_builds_variants(feed: Feed, exported: Exported, tmp_path: Path) -> None:
    report = TensorRtOracle().build(variant(exported(DEPTHWISE), feed, tmp_path).path)
    assert report.num_layers > 50
