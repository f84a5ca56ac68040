"""Graphs, tried on TensorRT for RTX: NVIDIA's parser and builder, without a GPU."""

from pathlib import Path

import onnx
import pytest
from dfkd_edge.exporters.fp16_cast import Fp16Exporter
from dfkd_edge.exporters.int8_ptq import Int8Exporter
from dfkd_edge.exporters.onnx_graph import smooth_images
from dfkd_edge.exporters.tensorrt_oracle import TensorRtOracle

from dfkd_edge.artifacts import ModelFile
from dfkd_edge.config.settings import ExportConfig
from dfkd_edge.errors import ConversionError
from dfkd_edge.interfaces import OracleReport
from dfkd_edge.networks.students import STUDENTS
from tests.exporters.conftest import DEPTHWISE, RESIDUAL, TENSORRT, Exported

pytest.importorskip("tensorrt_rtx_bindings", reason="the extra `oracle` is not installed")

CONFIG = ExportConfig(num_threads=1)


def build_in_every_precision(fp32: ModelFile, folder: Path, side_px: int) -> list[OracleReport]:
    fp16 = Fp16Exporter().export(fp32, TENSORRT, CONFIG, folder / "fp16.onnx")
    images = smooth_images(64, side_px, seed=4)
    calibration = Int8Exporter().calibrate(fp32, images, TENSORRT, CONFIG)
    int8 = Int8Exporter().export(fp32, calibration, TENSORRT, CONFIG, folder / "int8.onnx")
    return [TensorRtOracle().build(model.path) for model in (fp32, fp16, int8)]


def test_the_oracle_builds_a_small_student_in_every_precision(
    exported: Exported, tmp_path: Path
) -> None:
    for report in build_in_every_precision(exported(DEPTHWISE), tmp_path, 64):
        assert report.num_layers > 50
        assert report.engine_bytes > 100_000


@pytest.mark.slow
@pytest.mark.parametrize(
    "student", ["mini", "resnet18", "mobilenetv2_100", "mobilenetv4_conv_small"]
)
def test_the_oracle_builds_every_default_student_in_every_precision(
    student: str, exported: Exported, tmp_path: Path
) -> None:
    entry = STUDENTS[student]
    fp32 = exported(entry.timm_name, entry.image_size_px)
    reports = build_in_every_precision(fp32, tmp_path, entry.image_size_px)
    assert all(report.engine_bytes > 0 for report in reports)


def test_the_oracle_builds_a_dynamic_batch(exported: Exported) -> None:
    file = exported(RESIDUAL, 64, (1, 4, 8))
    assert TensorRtOracle().build(file.path, (1, 4, 8)).engine_bytes > 0


def test_the_oracle_names_the_node_that_it_refuses(exported: Exported, tmp_path: Path) -> None:
    model = onnx.load(exported(DEPTHWISE).path)
    pool = next(node for node in model.graph.node if node.op_type == "GlobalAveragePool")
    pool.op_type, pool.domain, pool.name = "Unheard", "elsewhere", "strange_pool"
    model.opset_import.append(onnx.helper.make_opsetid("elsewhere", 1))
    onnx.save(model, tmp_path / "bad.onnx")
    refused = r"^TensorRT-RTX [\d.]+ parser \(SM86, no device\) refuses node 'strange_pool'"
    with pytest.raises(ConversionError, match=refused) as caught:
        TensorRtOracle().build(tmp_path / "bad.onnx")
    assert "\n" not in str(caught.value)
