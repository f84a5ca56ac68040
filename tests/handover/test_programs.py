"""Programs that a bundle carries for a runtime run here, on stand-ins of what only a device has."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dfkd_edge.handover.lookup import load_runtime
from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.runtime.session import open_graph
from tests.handover import stand_ins
from tests.handover.conftest import MakeJob


def golden(folder: Path) -> tuple[Any, dict[str, Any]]:
    answer = json.loads((folder / "golden" / "answer.json").read_text(encoding="utf-8"))["answer"]
    return np.asarray(Image.open(folder / "golden" / "picture.png").convert("RGB")), answer


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The stand-ins, importable."""
    modules = stand_ins.modules()
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return modules


DRIVER = """
import json, sys
from pathlib import Path
import numpy as np
sys.path.insert(0, sys.argv[1])
import stand_ins
with np.load(sys.argv[3]) as pictures:
    print(json.dumps(stand_ins.classify_in_ros(Path(sys.argv[2]), dict(pictures))))
"""


def test_the_ros_node_answers_every_encoding_with_the_code_of_the_bundle_alone(
    jetson_bundle: Bundle, tmp_path: Path
) -> None:
    folder = jetson_bundle.folder / "runtimes" / "ros2"
    picture, answer = golden(folder)
    alpha = np.full((*picture.shape[:2], 1), 255, np.uint8)
    bgr = picture[..., ::-1]
    pictures = {
        "rgb8": picture,
        "bgr8": bgr,
        "rgba8": np.concatenate([picture, alpha], 2),
        "bgra8": np.concatenate([bgr, alpha], 2),
        "mono8": picture[..., :1],
        "yuv422": picture[..., :2],
    }
    np.savez(tmp_path / "pictures.npz", **pictures)
    arguments = [
        Path(__file__).parent,
        folder / "classification_node.py",
        tmp_path / "pictures.npz",
    ]
    ran = subprocess.run(
        [sys.executable, "-c", DRIVER, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    found = json.loads(ran.stdout)
    assert str(jetson_bundle.folder / "check.pyz") in found["code"]
    assert list(found["answers"]) == list(pictures)[:-1]
    for encoding in ("rgb8", "bgr8", "rgba8", "bgra8"):
        ((label, score),) = found["answers"][encoding]
        assert label == answer["label"]
        assert score == pytest.approx(answer["probability"], abs=0.05)
    assert "encoding 'yuv422' is none of rgb8, bgr8" in found["logged"][-1]


def test_an_unsure_answer_of_the_ros_node_has_no_result(
    jetson_bundle: Bundle, device: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = stand_ins.load(
        jetson_bundle.folder / "runtimes/ros2/classification_node.py"
    ).Classifier()
    picture, _ = golden(jetson_bundle.folder / "runtimes/ros2")
    sure = SimpleNamespace(probabilities=lambda x: x, is_known=lambda x: np.array([False]))
    node.bundle = SimpleNamespace(
        side_px=len(picture), confidence=sure, classes=jetson_bundle.classes
    )
    height, width = picture.shape[:2]
    node.classify(
        device["sensor_msgs.msg"].Image(
            encoding="rgb8", height=height, width=width, step=3 * width, data=picture.tobytes()
        )
    )
    assert node.published[0].results == []


def test_the_ros_node_ends_in_one_line_where_the_bundle_was_changed(
    jetson_bundle: Bundle,
    device: dict[str, ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = Path(shutil.copytree(jetson_bundle.folder, tmp_path / "copy"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    program = stand_ins.load(folder / "runtimes" / "ros2" / "classification_node.py")
    program.main()
    (folder / "classes.txt").write_text("cat\n", encoding="utf-8")
    with pytest.raises(SystemExit, match=r"^error: [^\n]* differs from the manifest[^\n]*$"):
        program.main()


@pytest.mark.parametrize(
    ("jetpack", "message", "key"),
    [("5.1.2", "Classification2D", "id="), ("6.2", "Classification", "class_id=")],
)
def test_the_ros_of_the_jetpack_decides_the_names_of_the_messages(
    jetpack: str, message: str, key: str, make_job: MakeJob
) -> None:
    job = make_job("ros2", f"orin-nx-16gb@jp{jetpack}")
    text = load_runtime("ros2").write(job)["classification_node.py"]
    assert f"import {message}, ObjectHypothesis" in text
    assert f"ObjectHypothesis({key}" in text
    assert "@" not in text


def test_the_launch_file_of_the_ros_node_starts_it_with_every_argument(
    jetson_bundle: Bundle, device: dict[str, ModuleType]
) -> None:
    folder = jetson_bundle.folder / "runtimes" / "ros2"
    actions = stand_ins.load(folder / "classify.launch.py").generate_launch_description().args[0]
    *declared, process = actions
    assert process.cmd[:2] == ["python3", str(folder / "classification_node.py")]
    names = {argument.args[0] for argument in declared}
    assert names == {"image", "classification", "top", "backend"}
    used = [part[1].args[0] for part in process.cmd if isinstance(part, list)]
    assert set(used) == names


@pytest.mark.parametrize(
    ("jetpack", "encoder"),
    [
        ("6.2", "dnn_image_encoder"),
        ("7.1", "dnn_image_encoder"),
        ("7.2", "dnn_image_encoder_nodes"),
    ],
)
def test_isaac_ros_squeezes_undoes_its_division_and_runs_the_engine_of_trtexec(
    jetpack: str,
    encoder: str,
    make_job: MakeJob,
    device: dict[str, ModuleType],
    tmp_path: Path,
) -> None:
    module = "orin-nx-16gb" if jetpack[0] == "6" else "t5000"
    texts = load_runtime("isaac-ros").write(make_job("isaac-ros", f"{module}@jp{jetpack}", "int8"))
    path = tmp_path / "classify.launch.py"
    path.write_text(texts[path.name], encoding="utf-8")
    actions = stand_ins.load(path).generate_launch_description().args[0]
    container, include = (
        a for a in actions if hasattr(a, "package") or hasattr(a, "launch_arguments")
    )
    given = dict(include.launch_arguments)
    assert given.keys() <= stand_ins.ENCODER
    assert include.args[0].args[0] == f"/isaac_ros_dnn_image_encoder/launch/{encoder}.launch.py"
    assert (given["keep_aspect_ratio"], given["enable_padding"]) == ("False", "True")
    levels = np.float32(200) / np.float32(255) / np.array(json.loads(given["image_stddev"]))
    np.testing.assert_allclose(levels, 200, rtol=1e-6)
    assert given["component_container_name"] == container.name
    (node,) = container.composable_node_descriptions
    (parameters,) = node.parameters
    assert parameters.keys() <= stand_ins.TENSOR_RT
    assert parameters["input_tensor_names"] == [given["final_tensor_name"]]
    assert (parameters["input_binding_names"], parameters["output_binding_names"]) == (
        ["image"],
        ["probabilities"],
    )
    # a graph beside it would be built anew, and Q/DQ refused
    assert "model_file_path" not in parameters
    assert parameters["force_engine_update"] is False
    assert f"--saveEngine={Path(parameters['engine_file_path']).name} --int8" in texts["README.md"]


def test_the_decoder_of_isaac_ros_publishes_the_class_of_the_tensor_or_none(
    jetson_bundle: Bundle, device: dict[str, ModuleType]
) -> None:
    folder = jetson_bundle.folder / "runtimes" / "isaac-ros"
    program = stand_ins.load(folder / "classification_node.py")
    tensor = np.fromfile(folder / "golden" / "input.bin", np.float32)
    session = open_graph(str(folder / "model.onnx"), 1, in_float=True)
    shape = session.get_inputs()[0].shape
    (probabilities,) = session.run(None, {"image": tensor.reshape(shape)})
    node = program.Decoder()
    kind = device["isaac_ros_tensor_list_interfaces.msg"].TensorList
    for values, below in ((probabilities, 0.0), (probabilities, 1.1)):
        vars(program)["UNKNOWN_BELOW"] = below
        data = values.astype(np.float32).tobytes()
        node.callbacks["tensor_sub"](kind(header="h", tensors=[SimpleNamespace(data=data)]))
    first, unknown = node.published
    _, answer = golden(folder)
    assert [result.class_id for result in first.results] == [answer["label"]]
    assert first.header == "h"
    assert unknown.results == []


def test_the_holoscan_application_prints_the_golden_answer(
    jetson_bundle: Bundle,
    device: dict[str, ModuleType],
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("yaml")
    folder = jetson_bundle.folder / "runtimes" / "holoscan"
    program = stand_ins.load(folder / "classify.py")
    application = program.Classifier(str(folder / "golden" / "picture.png"))
    application.config(str(folder / "app.yaml"))
    application.compose()
    (source, converter, _), (_, inference, _), (_, answer, _) = application.flows
    sent: dict[str, Any] = {}
    source.compute(None, SimpleNamespace(emit=lambda value, port: sent.update(value)), None)
    parameters = converter.parameters
    assert (parameters["in_dtype"], parameters["out_dtype"]) == ("rgb888", "rgb888")
    size = (parameters["resize_width"], parameters["resize_height"])
    image = np.asarray(Image.fromarray(sent[""]).resize(size))
    assert inference.parameters["pre_processor_map"]["student"] == [parameters["out_tensor_name"]]
    session = open_graph(str(folder / "model.onnx"), 1, in_float=True)
    values = session.run(None, {"image": image[None]})
    outputs = dict(zip(inference.parameters["inference_map"]["student"], values, strict=True))
    answer.compute(SimpleNamespace(receive=lambda port: outputs), None, None)
    _, wanted = golden(folder)
    label, probability = capsys.readouterr().out.rsplit(" ", 1)
    assert label == wanted["label"]
    assert float(probability) == pytest.approx(wanted["probability"], abs=0.05)
    # the same with a camera: other parameters, which the operators know
    camera = program.Classifier("/dev/video0")
    camera.config(str(folder / "app.yaml"))
    camera.compose()
    assert camera.flows[0][1].parameters["in_dtype"] == "rgba8888"


@pytest.mark.parametrize(
    ("target", "encoder"),
    [("orin-nano-8gb@jp6.2", "x264enc"), ("orin-nx-16gb@jp6.2", "nvv4l2h264enc")],
)
@pytest.mark.parametrize("name", ["deepstream", "deepstream-triton"])
def test_the_deepstream_script_names_an_encoder_that_the_module_has(
    name: str, target: str, encoder: str, make_job: MakeJob
) -> None:
    texts = load_runtime(name).write(make_job(name, target))
    for text in (texts["play.sh"], texts["README.md"]):
        assert [word for word in text.split() if "264enc" in word] == [encoder]


@contextlib.contextmanager
def triton_of(graph: Path) -> Iterator[str]:
    """Serve a graph by Triton's own protocol."""
    grpc = pytest.importorskip("grpc")
    service = pytest.importorskip("tritonclient.grpc.service_pb2_grpc")
    messages = pytest.importorskip("tritonclient.grpc.service_pb2")
    session = open_graph(str(graph), 1, in_float=True)

    class Servicer(service.GRPCInferenceServiceServicer):  # type: ignore[misc,name-defined]
        def ModelInfer(self, request: Any, context: Any) -> Any:
            (asked,) = request.inputs
            dtype = {"UINT8": np.uint8, "FP32": np.float32}[asked.datatype]
            image = np.frombuffer(request.raw_input_contents[0], dtype).reshape(asked.shape)
            names = [output.name for output in request.outputs]
            answer = messages.ModelInferResponse(model_name=request.model_name)
            for name, value in zip(names, session.run(names, {asked.name: image}), strict=True):
                answer.outputs.add(name=name, datatype="FP32", shape=value.shape)
                answer.raw_output_contents.append(value.tobytes())
            return answer

    server = grpc.server(ThreadPoolExecutor(1))
    service.add_GRPCInferenceServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None)


@pytest.mark.parametrize(
    ("runtime", "pictures", "said"),
    [
        ("onnxruntime", [], "python3 classify.py PICTURE"),
        ("triton", [], "python3 classify.py PICTURE"),
        ("triton", ["golden/picture.png"], r"error: .*UNAVAILABLE.* is the server of README.md up"),
    ],
)
def test_a_program_without_a_picture_or_a_server_says_what_it_lacks(
    runtime: str,
    pictures: list[str],
    said: str,
    jetson_bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = jetson_bundle.folder / "runtimes" / runtime
    monkeypatch.setenv("TRITON", "localhost:1")
    monkeypatch.setattr(sys, "argv", ["classify.py", *(str(folder / name) for name in pictures)])
    with pytest.raises(SystemExit, match=said):
        stand_ins.load(folder / "classify.py")


def test_the_client_asks_triton_by_its_protocol_and_prints_the_golden_answer(
    jetson_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = jetson_bundle.folder / "runtimes" / "triton"
    with triton_of(folder / "student/1/model.onnx") as address:
        monkeypatch.setenv("TRITON", address)
        monkeypatch.setattr(sys, "argv", ["classify.py", str(folder / "golden/picture.png")])
        stand_ins.load(folder / "classify.py")
    _, wanted = golden(folder)
    path, label, probability = capsys.readouterr().out.split()
    assert (path, label) == (f"{folder}/golden/picture.png:", wanted["label"])
    assert float(probability) == pytest.approx(wanted["probability"], abs=0.05)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("clip one.mp4", "uridecodebin uri=file://{here}/clip one.mp4 ! {nvmm}"),
        ("card.png", "uridecodebin uri=file://{here}/card.png ! videoconvert ! {nvmm}"),
        ("rtsp://cam/1", "uridecodebin uri=rtsp://cam/1 ! {nvmm}"),
        ("csi:1", "nvarguscamerasrc sensor-id=1 ! {nvmm}"),
        ("/dev/video2", "v4l2src device=/dev/video2 ! videoconvert ! {nvmm}"),
    ],
)
@pytest.mark.parametrize("name", ["deepstream", "deepstream-triton"])
def test_the_deepstream_script_plays_files_streams_and_cameras_once_the_engine_is_there(
    name: str, source: str, said: str, jetson_bundle: Bundle, tmp_path: Path
) -> None:
    stand_in = tmp_path / "gst-launch-1.0"
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n', encoding="utf-8")
    stand_in.chmod(0o755)
    for file in ("clip one.mp4", "card.png"):
        (tmp_path / file).touch()
    made = jetson_bundle.folder / "runtimes" / name
    folder = Path(shutil.copytree(made, tmp_path / name, copy_function=os.link))
    run = ["sh", str(folder / "play.sh"), source, "filesink location=out"]
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    early = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (early.returncode, early.stdout, len(early.stderr.splitlines())) == (4, "", 1)
    engine = early.stderr.split()[1].rstrip(":")
    assert f"--saveEngine={engine} " in (folder / "README.md").read_text(encoding="utf-8")
    (folder / engine).touch()
    ran = subprocess.run(
        run, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    words = ran.stdout.splitlines()
    # what decodes may leave its frames where the CPU reads them, and the muxer takes NVMM alone
    nvmm = "nvvideoconvert ! video/x-raw(memory:NVMM),format=NV12 ! mux.sink_0"
    assert said.format(here=tmp_path, nvmm=nvmm) in " ".join(words)
    is_live = not source.endswith(("mp4", "png"))
    assert f"live-source={int(is_live)}" in words
    config = next(word.partition("=")[2] for word in words if word.startswith("config-file-path="))
    assert (folder / config).is_file()
    assert words[-3:] == ["!", "filesink", "location=out"]
    for wrong in ([], ["no such.mp4"]):
        failed = subprocess.run(
            ["sh", str(folder / "play.sh"), *wrong], env=environment, capture_output=True, text=True
        )
        assert failed.returncode
        assert len(failed.stderr.splitlines()) == 1
