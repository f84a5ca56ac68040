from pathlib import Path

import numpy as np
import onnx
import pytest
from dfkd_edge.exporters.fp16_cast import Fp16Exporter
from dfkd_edge.exporters.runners import make_runner
from numpy.typing import NDArray
from onnx import TensorProto

from dfkd_edge.config.settings import ExportConfig
from dfkd_edge.errors import ConversionError
from tests.exporters.conftest import DEPTHWISE, RESIDUAL, TENSORRT, Exported, make_target


@pytest.mark.parametrize("name", [DEPTHWISE, RESIDUAL])
def test_half_the_bytes_and_nearly_the_same_logits_normalising_and_text_head_in_float32(
    name: str, exported: Exported, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    fp32 = exported(name)
    fp16 = Fp16Exporter().export(fp32, TENSORRT, ExportConfig(), tmp_path / "m.onnx")
    before, after = (make_runner(model, 1)(images[:8]).logits for model in (fp32, fp16))
    np.testing.assert_allclose(before, after, atol=0.2)
    assert fp16.size_bytes < 0.6 * fp32.size_bytes
    model = onnx.load(fp16.path)
    types = {t.name: t.data_type for t in model.graph.initializer}
    convs = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    assert {types[node.input[1]] for node in convs} == {TensorProto.FLOAT16}
    assert types["text_head"] == types["scale"] == TensorProto.FLOAT
    properties = {item.key: item.value for item in model.metadata_props}
    assert properties["dfkd_edge.precision"] == "fp16"


def test_a_target_without_fp16_is_refused(exported: Exported, tmp_path: Path) -> None:
    args = (exported(DEPTHWISE), make_target("x86"), ExportConfig(), tmp_path / "m.onnx")
    with pytest.raises(ConversionError, match="does not compute in fp16"):
        Fp16Exporter().export(*args)
