import contextlib
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from dfkd_edge.bundles.predict import PredictRequest, classify_pictures
from dfkd_edge.errors import DfkdEdgeError
from dfkd_edge.runtime.bundle_files import Bundle, read_bundle
from dfkd_edge.runtime.faults import Fault
from dfkd_edge.runtime.graph_guard import read_outline
from dfkd_edge.runtime.limits import Deadline
from dfkd_edge.runtime.safe_files import file_sha256
from dfkd_edge.runtime.session import OnnxSession, SessionRequest, open_graph
from tests.fixtures.files import edit_json, read_json, write_picture

FLOAT = TensorProto.FLOAT


def body() -> GraphProto:
    """One step of a loop: it goes on, and carries `x` along."""
    return helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["v"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", FLOAT, [1]),
        ],
    )


def model_of(*nodes: NodeProto, **constants: Any) -> ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", FLOAT, [1])],
        [helper.make_tensor_value_info("y", FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def looping() -> ModelProto:
    loop = helper.make_node("Loop", ["steps", "yes", "x"], ["y"], body=body())
    return model_of(loop, steps=np.int64(2**60), yes=np.bool_(True))


def branching() -> ModelProto:
    branch = {"then_branch": body(), "else_branch": body()}
    return model_of(helper.make_node("If", ["yes"], ["y"], **branch), yes=np.bool_(True))


def hiding_a_loop_in_a_function() -> ModelProto:
    model = model_of(helper.make_node("Identity", ["x"], ["y"]))
    step = helper.make_node("Identity", ["a"], ["b"])
    opset = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("own", "f", ["a"], ["b"], [step], opset))
    return model


def training() -> ModelProto:
    model = model_of(helper.make_node("Identity", ["x"], ["y"]))
    model.training_info.add().algorithm.CopyFrom(looping().graph)
    return model


def reading_another_file() -> ModelProto:
    model = model_of(helper.make_node("Add", ["x", "w"], ["y"]), w=np.zeros(1, np.float32))
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../secret")
    return model


def reading_another_file_from_a_constant() -> ModelProto:
    value = TensorProto(dims=[1], data_type=FLOAT, data_location=TensorProto.EXTERNAL)
    value.external_data.add(key="location", value="weights.bin")
    return model_of(helper.make_node("Constant", [], ["y"], value=value))


HOSTILE: dict[str, Callable[[], ModelProto]] = {
    "Loop": looping,
    "graph within a node": branching,
    "a function of its own": hiding_a_loop_in_a_function,
    "another file": reading_another_file,
    "weights in another": reading_another_file_from_a_constant,
    "com.microsoft.BeamSearch": lambda: model_of(
        helper.make_node("BeamSearch", ["x"], ["y"], domain="com.microsoft")
    ),
    "RandomNormal": lambda: model_of(helper.make_node("RandomNormal", [], ["y"], shape=[1])),
    "Bernoulli": lambda: model_of(helper.make_node("Bernoulli", ["x"], ["y"])),
    "Dropout": lambda: model_of(
        helper.make_node("Dropout", ["x", "", "on"], ["y"]), on=np.bool_(True)
    ),
    "ImageDecoder": lambda: model_of(helper.make_node("ImageDecoder", ["x"], ["y"])),
    "RegexFullMatch": lambda: model_of(helper.make_node("RegexFullMatch", ["x"], ["y"])),
    "a graph that trains": training,
    "SequenceMap": lambda: model_of(helper.make_node("SequenceMap", ["x"], ["y"])),
}


@pytest.mark.parametrize("said", HOSTILE)
def test_a_graph_that_may_not_end_or_leaves_its_file_is_refused_before_it_is_loaded(
    said: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(HOSTILE[said]().SerializeToString())
    words = {"Loop": "a graph within a node"}.get(said, said)  # its attribute is met first
    with pytest.raises(Fault, match=words) as caught:
        OnnxSession(SessionRequest(path))
    assert str(caught.value).count("\n") == 0


def varint(number: int) -> bytes:
    low, rest = number & 127, number >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


OF_GRAPH = 7 << 3 | 2
"""Tag of ModelProto's graph: protobuf joins what comes in several pieces."""
LOOP = looping().graph.SerializeToString()


@pytest.mark.parametrize(
    ("piece", "said"),
    [
        pytest.param(
            # above 32 bits, which protobuf drops: it reads the graph, and ran its loop
            varint(OF_GRAPH | 1 << 33)
            + varint(len(raw := looping().graph.SerializeToString()))
            + raw,
            "no ONNX graph",
            id="a tag that runtimes read as another",
        ),
        pytest.param(b"\x00\x00", "no ONNX graph", id="a field of number 0"),
        pytest.param(b"\x78\x01" * 1_000, "more than 900 fields", id="fields without end"),
        pytest.param(
            varint(OF_GRAPH) + varint(2_000) + b"\x2a\x00" * 1_000,
            "more than 900 fields",
            id="tensors without end",
        ),
    ],
)
def test_bytes_that_hide_from_the_guard_or_keep_it_busy_are_refused(
    piece: bytes, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dfkd_edge.runtime.graph_guard.MAX_FIELDS", 900)
    path = tmp_path / "model.onnx"
    plain = model_of(helper.make_node("Identity", ["x"], ["y"])).SerializeToString()
    path.write_bytes(plain)
    assert read_outline(path).num_nodes == 1
    path.write_bytes(plain + piece)
    with pytest.raises(Fault, match=said):
        read_outline(path)


def test_a_file_of_onnxruntimes_own_format_is_not_read_under_any_name(tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.optimized_model_filepath = str(tmp_path / "other.ort")
    plain = model_of(helper.make_node("Identity", ["x"], ["y"])).SerializeToString()
    onnxruntime.InferenceSession(plain, options)
    with pytest.raises(Exception, match=r"[Pp]rotobuf"):
        open_graph(options.optimized_model_filepath, 1)


def test_an_outline_tells_shapes_and_every_cut_or_flipped_file_is_one_fault(
    tiny_bundle: Bundle, tmp_path: Path
) -> None:
    whole = tiny_bundle.model_path("fp32").read_bytes()
    assert read_outline(tiny_bundle.folder / "model.fp32.onnx").outputs["logits"] == (1, 3)
    assert set(read_outline(tiny_bundle.folder / "model.fp32.onnx").outputs) == {
        *("logits", "probabilities", "embedding")
    }
    path = tmp_path / "damaged.onnx"
    random = np.random.default_rng(0)
    for end in random.integers(0, len(whole), 100):
        path.write_bytes(whole[:end])
        with pytest.raises(Fault, match="ONNX"):
            read_outline(path)
    for place in random.integers(0, len(whole), 300):
        changed = bytearray(whole)
        changed[place] ^= 1 << random.integers(8)
        path.write_bytes(bytes(changed))
        with contextlib.suppress(Fault):  # most bytes are weights; none ends in another error
            read_outline(path)


def answer(path: Path) -> None:
    OnnxSession(SessionRequest(path)).run(np.ones((1, 1, 1, 1), np.float32))


def test_a_graph_that_asks_for_more_than_the_memory_fails_alone_and_writes_to_no_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = model_of(
        helper.make_node("Expand", ["x", "size"], ["wide"], name="\x1b]0;owned\x07"),
        helper.make_node("ReduceSum", ["wide"], ["y"]),
        size=np.array([1 << 20, 1 << 20]),  # 4 TiB
    )
    image = helper.make_tensor_value_info("image", FLOAT, [1, 1, 1, 1])
    model.graph.input[0].CopyFrom(image)
    model.graph.node[0].input[0] = "image"
    model.graph.node[0].input[1] = "size4"
    model.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.array([1, 1, 1 << 20, 1 << 20]), "size4")
    )
    del model.graph.output[:]
    for name in ("logits", "probabilities", "embedding"):
        model.graph.node.append(helper.make_node("Identity", ["y"], [name]))
        model.graph.output.append(helper.make_tensor_value_info(name, FLOAT, None))
    onnx.save(model, tmp_path / "wide.onnx")
    with pytest.raises(Fault, match="onnxruntime cannot"):
        answer(tmp_path / "wide.onnx")
    assert capfd.readouterr().err == ""  # onnxruntime's own log has the name as it is


def test_why_a_graph_is_refused_is_said_to_the_end(tmp_path: Path) -> None:
    model = model_of(helper.make_node("Identity", ["x"], ["y"]))
    model.ir_version = 999
    path = tmp_path / ("long" * 50) / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(model.SerializeToString())
    with pytest.raises(Fault, match="IR version: 999, max supported IR version"):
        answer(path)


def test_a_model_that_answers_no_numbers_predicts_nothing(
    tiny_bundle: Bundle, tiny_graph: Callable[..., None]
) -> None:
    path = tiny_bundle.model_path("fp32")
    tiny_graph(path, gain=float("nan"))
    entry = {"sha256": file_sha256(path), "bytes": path.stat().st_size}
    manifest = tiny_bundle.folder / "manifest.json"
    edit_json(manifest, files=read_json(manifest)["files"] | {path.name: entry})
    bundle = read_bundle(tiny_bundle.folder)
    picture = write_picture(bundle.folder.parent / "a.png", 0)
    request = PredictRequest(images=[str(picture)], precision="fp32")
    with pytest.raises(DfkdEdgeError, match="model answers with what is no number"):
        classify_pictures(bundle.folder, request)


def endless(path: Path, on_image: bool) -> None:
    """Write a graph of one second of sums, of the image or of nothing: folded when loaded."""
    image = helper.make_tensor_value_info("image", FLOAT, [1, 1, 1, 1])
    steps = [f"m{number}" for number in range(40)]
    begin = helper.make_node("Expand", ["image" if on_image else "one", "size"], [steps[0]])
    sums = [helper.make_node("MatMul", [m, m], [n]) for m, n in itertools.pairwise(steps)]
    last = helper.make_node("ReduceMax", [steps[-1]], ["y"])
    constants = {"size": np.array([1, 1, 1_000, 1_000]), "one": np.zeros(1, np.float32)}
    model = model_of(begin, *sums, last, **constants)
    model.graph.input[0].CopyFrom(image)
    del model.graph.output[:]
    for name in ("logits", "probabilities", "embedding"):
        model.graph.node.append(helper.make_node("Identity", ["y"], [name]))
        model.graph.output.append(helper.make_tensor_value_info(name, FLOAT, None))
    onnx.save(model, path)


@pytest.mark.parametrize(("verb", "on_image"), [("load", False), ("run", True)])
def test_a_load_or_a_first_run_that_does_not_end_is_given_up(
    verb: str, on_image: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless(tmp_path / "model.onnx", on_image)
    monkeypatch.setattr("dfkd_edge.runtime.limits.MAX_RUN_S", 0.1)
    with pytest.raises(Fault, match=rf"cannot {verb} the model: it takes more than 0.1 s"):
        answer(tmp_path / "model.onnx")


def test_a_run_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    class Options:
        terminate = False

    monkeypatch.setattr("dfkd_edge.runtime.limits.WATCH_EVERY_S", 0.01)
    options = Options()
    deadline = Deadline(options, max_s=0)
    with deadline:
        for _ in range(500):
            if options.terminate:
                break
            time.sleep(0.01)
    assert options.terminate


def test_a_graph_with_other_classes_than_the_bundle_answers_nothing(tiny_bundle: Bundle) -> None:
    path = tiny_bundle.folder / "manifest.json"
    names = [*tiny_bundle.classes, "one more"]
    (tiny_bundle.folder / "classes.txt").write_text("".join(f"{n}\n" for n in names), "utf-8")
    edit_json(path, classes=names, files=read_json(path)["files"])
    bundle = read_bundle(tiny_bundle.folder)
    with pytest.raises(Fault, match="3 logits to 4 classes"):
        bundle.model_path("fp32")


@pytest.mark.parametrize("shape", [[1 << 31, 16, 16, 3], [2, 16, 16, 3], [1, 32, 32, 3], [1], []])
def test_a_graph_that_takes_other_pictures_than_the_contract_says_is_refused(
    shape: list[int], tiny_bundle: Bundle
) -> None:
    path = tiny_bundle.model_path("fp32")
    model = onnx.load(path)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("image", TensorProto.UINT8, shape))
    onnx.save(model, path)
    with pytest.raises(Fault, match="other pictures than the contract says"):
        tiny_bundle.model_path("fp32")
