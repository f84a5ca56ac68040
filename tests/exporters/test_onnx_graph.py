import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from dfkd_edge.exporters import onnx_graph
from dfkd_edge.exporters.onnx_graph import OnnxExporter
from dfkd_edge.exporters.runners import make_runner
from numpy.typing import NDArray

from dfkd_edge.artifacts import ModelFile
from dfkd_edge.config.settings import ExportConfig
from dfkd_edge.conversion.lint import lint_model
from dfkd_edge.errors import ConversionError, EnvironmentLackingError
from dfkd_edge.networks.runners import TorchRunner
from dfkd_edge.networks.students import load_student
from tests.exporters.conftest import DEPTHWISE, RESIDUAL, TENSORRT, Exported, SavedStudent


def test_the_graph_equals_torch_in_every_output(
    saved_student: SavedStudent, exported: Exported, images: NDArray[np.uint8]
) -> None:
    given = make_runner(exported(DEPTHWISE), 1)(images[:6])
    wanted = TorchRunner("student", load_student(saved_student(DEPTHWISE)))(images[:6])
    np.testing.assert_allclose(given.logits, wanted.logits, atol=1e-4)
    np.testing.assert_allclose(given.embedding, wanted.embedding, atol=1e-5)
    np.testing.assert_allclose(given.probabilities.sum(1), 1, atol=1e-5)


def test_the_file_alone_says_what_it_is_batch_norms_are_folded_and_pools_are_global(
    exported: Exported,
) -> None:
    model = onnx.load(exported(DEPTHWISE).path)
    operators = {node.op_type for node in model.graph.node}
    assert {"Conv", "GlobalAveragePool", "Clip"} <= operators
    assert not operators & {"BatchNormalization", "ReduceMean", "Shape", "Gather"}
    properties = {item.key: item.value for item in model.metadata_props}
    assert json.loads(properties["dfkd_edge.classes"]) == ["dog", "house", "person"]
    assert json.loads(properties["dfkd_edge.preprocess"])["input"]["layout"] == "NHWC"
    assert properties["dfkd_edge.precision"] == "fp32"
    assert model.opset_import[0].version == 17
    assert model.ir_version <= 10
    shape = model.graph.input[0].type.tensor_type.shape
    assert [dim.dim_value for dim in shape.dim] == [1, 64, 64, 3]


def test_the_text_head_is_a_named_initializer_that_decides_the_classes(
    exported: Exported, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    file = exported(DEPTHWISE)
    model = onnx.load(file.path)
    head = next(t for t in model.graph.initializer if t.name == "text_head")
    swapped = np.roll(onnx.numpy_helper.to_array(head), 1, axis=1)
    head.CopyFrom(onnx.numpy_helper.from_array(swapped, "text_head"))
    onnx.save(model, tmp_path / "swapped.onnx")
    other = ModelFile(tmp_path / "swapped.onnx", "onnx", "fp32", {})
    before, after = (make_runner(m, 1)(images[:4]).logits for m in (file, other))
    np.testing.assert_allclose(np.roll(before, 1, axis=1), after, atol=1e-4)


def test_several_batch_sizes_leave_the_batch_open(
    exported: Exported, images: NDArray[np.uint8]
) -> None:
    file = exported(RESIDUAL, 64, (1, 4, 8))
    assert file.notes["batch"] == [1, 4, 8]
    one, many = (make_runner(exported(RESIDUAL, 64, b), 1) for b in ((1,), (1, 4, 8)))
    np.testing.assert_allclose(one(images[:7]).logits, many(images[:7]).logits, atol=1e-4)


@pytest.mark.parametrize("batch", [(1,), (1, 4)])
def test_attention_reads_no_shape_of_the_uint8_input(
    batch: tuple[int, ...], exported: Exported
) -> None:
    file = exported("test_vit", 64, batch)
    assert not lint_model(file.path, TENSORRT)
    counted = Counter(node.op_type for node in onnx.load(file.path).graph.node)
    assert counted["MatMul"] + counted["Gemm"] > 10
    assert counted["Expand"] == (len(batch) > 1)  # the class token: a constant where N is known


@pytest.mark.parametrize("opset", [13, 20])
def test_an_older_or_newer_opset_is_checked_not_only_stamped(
    opset: int, saved_student: SavedStudent, tmp_path: Path
) -> None:
    file = OnnxExporter().export(
        saved_student(RESIDUAL), TENSORRT, ExportConfig(opset=opset), tmp_path / "m.onnx"
    )
    assert onnx.load(file.path).opset_import[0].version == opset
    assert file.notes["exporter"] == "dynamo"
    assert file.notes["max_logit_difference"] < 1e-4


def test_the_second_exporter_takes_over_and_is_named(
    saved_student: SavedStudent,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: object) -> onnx.ModelProto:
        raise RuntimeError("an operator it does not know")

    monkeypatch.setattr(onnx_graph, "_trace_dynamo", refuse)
    file = OnnxExporter().export(
        saved_student(DEPTHWISE), TENSORRT, ExportConfig(), tmp_path / "m.onnx"
    )
    assert file.notes["exporter"] == "torchscript"
    assert file.notes["fallback_from"][0].startswith("dynamo: ")
    assert capfd.readouterr().out == ""


def test_a_full_disk_is_told_of_and_lets_no_other_exporter_write_the_graph(
    saved_student: SavedStudent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = list[Path]()

    def write(model: onnx.ModelProto, precision: str, path: Path) -> None:
        written.append(path)
        raise EnvironmentLackingError("cannot write: No space left on device", where=str(path))

    monkeypatch.setattr(onnx_graph, "write_checked", write)
    with pytest.raises(EnvironmentLackingError, match="No space left"):
        OnnxExporter().export(
            saved_student(RESIDUAL), TENSORRT, ExportConfig(), tmp_path / "m.onnx"
        )
    assert len(written) == 1


def test_an_opset_beyond_the_target_is_refused(saved_student: SavedStudent, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="opset 20 at most"):
        OnnxExporter().export(
            saved_student(DEPTHWISE), TENSORRT, ExportConfig(opset=21), tmp_path / "m.onnx"
        )


def test_a_damaged_graph_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    with pytest.raises(ConversionError) as caught:
        make_runner(ModelFile(tmp_path / "bad.onnx", "onnx", "fp32", {}), 1)
    assert "\n" not in str(caught.value)
