"""Graphs, tried on TensorRT for RTX: NVIDIA's parser and builder, without a GPU."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from dfkd_edge.exporters.fp16_cast import Fp16Exporter
from dfkd_edge.exporters.int8_ptq import Int8Exporter
from dfkd_edge.exporters.onnx_graph import smooth_images
from dfkd_edge.exporters.tensorrt_oracle import TensorRtOracle
from numpy.typing import NDArray

from dfkd_edge.artifacts import ModelFile
from dfkd_edge.config.settings import ExportConfig
from dfkd_edge.errors import ConversionError
from dfkd_edge.networks.students import STUDENTS
from dfkd_edge.target_profiles.profile import TargetProfile

pytest.importorskip("tensorrt_rtx_bindings", reason="the extra `oracle` is not installed")

CONFIG = ExportConfig(num_threads=1)


def converted(
    fp32: ModelFile, precision: str, target: TargetProfile, folder: Path, side_px: int
) -> ModelFile:
    path = folder / f"model.{precision}.onnx"
    if precision == "fp16":
        fp16: ModelFile = Fp16Exporter().export(fp32, target, CONFIG, path)
        return fp16
    if precision == "int8":
        images: NDArray[np.uint8] = smooth_images(64, side_px, seed=4)
        calibration = Int8Exporter().calibrate(fp32, images, target, CONFIG)
        int8: ModelFile = Int8Exporter().export(fp32, calibration, target, CONFIG, path)
        return int8
    return fp32


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_oracle_builds_a_small_student(
    precision: str,
    exported: Callable[..., ModelFile],
    target: Callable[..., TargetProfile],
    tmp_path: Path,
) -> None:
    fp32 = exported("tiny_mobilenet")
    model = converted(fp32, precision, target("tensorrt"), tmp_path, 64)
    report = TensorRtOracle().build(model.path)
    assert report.num_layers > 50
    assert report.engine_bytes > 100_000


@pytest.mark.slow
@pytest.mark.parametrize(
    "student", ["mini", "resnet18", "mobilenetv2_100", "mobilenetv4_conv_small"]
)
def test_the_oracle_builds_every_default_student_in_every_precision(
    student: str,
    exported: Callable[..., ModelFile],
    target: Callable[..., TargetProfile],
    tmp_path: Path,
) -> None:
    entry = STUDENTS[student]
    fp32 = exported(entry.timm_name, entry.image_size_px)
    for precision in ("fp32", "fp16", "int8"):
        profile = target("tensorrt")
        model = converted(fp32, precision, profile, tmp_path, entry.image_size_px)
        assert TensorRtOracle().build(model.path).engine_bytes > 0


def test_the_oracle_builds_a_dynamic_batch(exported: Callable[..., ModelFile]) -> None:
    file = exported("test_resnet", 64, (1, 4, 8))
    assert TensorRtOracle().build(file.path, (1, 4, 8)).engine_bytes > 0


def test_the_oracle_names_the_node_that_it_refuses(
    exported: Callable[..., ModelFile], tmp_path: Path
) -> None:
    model = onnx.load(exported("tiny_mobilenet").path)
    pool = next(node for node in model.graph.node if node.op_type == "GlobalAveragePool")
    pool.op_type, pool.domain, pool.name = "Unheard", "elsewhere", "strange_pool"
    model.opset_import.append(onnx.helper.make_opsetid("elsewhere", 1))
    onnx.save(model, tmp_path / "bad.onnx")
    refused = r"^TensorRT-RTX [\d.]+ parser \(SM86, no device\) refuses node 'strange_pool'"
    with pytest.raises(ConversionError, match=refused) as caught:
        TensorRtOracle().build(tmp_path / "bad.onnx")
    assert "\n" not in str(caught.value)
