"""Configurations go through the runtime's parser, where one can be had, and fit the graph."""

import dataclasses
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from dfkd_edge.errors import ConversionError
from dfkd_edge.handover.lookup import load_runtime
from dfkd_edge.handover.parsers import GLIB, read_back
from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.runtime.session import open_graph
from dfkd_edge.target_profiles.profile import Precision
from tests.handover.conftest import EVERY, MakeJob, targets

PRIMARY = "config_infer_primary.txt"
SINCE = {"strongly-typed": (9, 0)}


def nvinfer(text: str) -> dict[str, str]:
    """Read a configuration with GLib, as the element does, and with our table of its keys."""
    try:
        keys: dict[str, str] = load_runtime("deepstream").parsers[PRIMARY](text)
    except OSError:
        pytest.skip("libglib-2.0.so.0 is not here")
    return keys


SET_BY = {
    "deepstream": "channels scale aspect filter layout size precision",
    "deepstream-triton": "channels scale aspect filter layout size",
    "holoscan": "scale offsets filter size dtype",
    "isaac-ros": "channels offsets aspect",
    "triton": "layout size",
}
"""Mistakes that a key of the configuration mends."""


@pytest.mark.parametrize("batch", [(1, 1, 1), (1, 4, 8)])
@pytest.mark.parametrize("name", EVERY)
def test_a_mend_names_what_the_configuration_sets_and_no_key_that_it_lacks(
    name: str, batch: tuple[int, int, int], make_job: MakeJob
) -> None:
    # the newest DeepStream: `precision` is mended by a key from 9.0 on
    target = "t5000@jp7.2" if name == "deepstream" else "jetson"
    job = make_job(name, target, "int8", batch=(1, 1, 1) if name == "holoscan" else batch)
    texts = load_runtime(name).write(job)
    lines = [
        line.replace('"', "")
        for key in texts.keys() - {"README.md"}
        for line in texts[key].splitlines()
        if not line.startswith("#")
    ]
    found = set()
    for kind, mend in job.profile.mends.items():
        for key, sep, value in re.findall(
            r"(?<!no )\b([a-z][\w-]+)(=|: )(\[[^]]*\]|[\w.;/-]+)", job.filled(mend)
        ):
            held = [
                line.split(f"{key}{sep}")[1].rstrip(", ")
                for line in lines
                if line.strip().startswith(f"{key}{sep}")
            ]
            found |= {kind} if held else set()
            assert not held or any(one.split("  #")[0] == value for one in held), (mend, held)
        for key in re.findall(r"\bno ([a-z][\w-]+)", mend):
            assert not any(line.strip().startswith((f"{key}=", f"{key}: ")) for line in lines)
    assert found == set(SET_BY.get(name, "").split())


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("jetson", "leaves its frame out of a video"),
        ("nano@jp4.6.1", "is older than `--threshold`"),
    ],
)
def test_imagenet_is_given_no_option_that_it_passes_over_and_says_what_it_does_instead(
    target: str, said: str, make_job: MakeJob
) -> None:
    job = dataclasses.replace(make_job("jetson-inference", target, "fp16"), proven="int8")
    texts = load_runtime("jetson-inference").write(job)
    assert "--precision" not in texts["run.sh"]  # a model of one's own is FASTEST: FP16
    assert "computes in FP16, where this bundle was measured in INT8." in texts["README.md"]
    assert said in texts["README.md"]


@pytest.mark.parametrize(
    ("name", "lacking"), [("trtexec", "set TRTEXEC"), ("jetson-inference", "in a container of")]
)
def test_a_script_whose_program_is_not_there_says_so_in_a_line(
    name: str, lacking: str, make_job: MakeJob, tmp_path: Path
) -> None:
    job = make_job(name, "orin-nx-16gb@jp6.2", "fp16", use_dla=True)
    texts = load_runtime(name).write(job)
    script = tmp_path / "runtimes" / name / "run.sh"
    script.parent.mkdir(parents=True)
    script.write_text(texts["run.sh"], encoding="utf-8")
    ran = subprocess.run(
        ["/bin/sh", script], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert ran.returncode == 4
    assert lacking in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert ("never on a DLA" in texts["README.md"]) == (name == "jetson-inference")


def test_nvinfer_that_builds_no_int8_says_what_does_and_why(make_job: MakeJob) -> None:
    texts = load_runtime("deepstream").write(make_job("deepstream", "jetson", "int8"))
    (command,) = (line for line in texts["README.md"].splitlines() if "trtexec --onnx" in line)
    assert f"once: {command}\n" in texts[PRIMARY]
    assert "# no onnx-file: this nvinfer would build it in another precision" in texts[PRIMARY]
    assert "another graph than `../../model.int8.onnx`, of the same weights" in texts["README.md"]


@pytest.mark.parametrize("name", EVERY)
def test_a_readme_of_a_bundle_that_failed_its_gate_says_so_first(
    name: str, make_job: MakeJob
) -> None:
    job = make_job(name)
    assert "FAILED" not in load_runtime(name).write(job)["README.md"]
    text = load_runtime(name).write(dataclasses.replace(job, has_failed=True))["README.md"]
    assert text.startswith("**Gate: FAILED: ")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("jetpack", ["4.6.1", "5.0.2", "5.1.2", "6.0", "6.2", "7.0", "7.1", "7.2"])
def test_nvinfer_knows_every_key_in_the_version_of_the_jetpack(
    jetpack: str, precision: Precision, make_job: MakeJob
) -> None:
    job = make_job("deepstream", f"{module_of(jetpack)}@jp{jetpack}", precision, batch=(1, 4, 8))
    texts = load_runtime("deepstream").write(job)
    for name in ("config_infer_primary.txt", "config_infer_secondary.txt"):
        keys = nvinfer(texts[name])
        assert all(job.release >= SINCE.get(key, (0,)) for key in keys)
        is_typed = "strongly-typed" in keys
        mode = "fp32" if is_typed else precision
        assert keys["network-mode"] == {"fp32": "0", "int8": "1", "fp16": "2"}[mode]
        # the name that nvinfer gives to what it builds, or it builds it at each start
        assert keys["model-engine-file"] == f"{job.model}_b8_gpu0_{mode}.engine"
        assert (keys["network-type"], keys["batch-size"]) == ("1", "8")
        # Q/DQ: typed by the graph from 9.0 on, before that an engine and no graph to fall back to
        assert is_typed is (precision == "int8" and job.release >= (9, 0))
        assert is_typed or precision != "int8" or "onnx-file" not in keys
        assert ("trtexec" in texts["README.md"]) is ("onnx-file" not in keys)
    assert nvinfer(texts["config_infer_secondary.txt"])["operate-on-gie-id"] == "1"


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_nvinfer_is_told_of_the_dla_for_which_trtexec_builds_int8(
    precision: Precision, make_job: MakeJob
) -> None:
    job = make_job("deepstream", "orin-nx-16gb@jp7.2", precision, use_dla=True)
    texts = load_runtime("deepstream").write(job)
    keys = nvinfer(texts[PRIMARY])
    assert (keys["enable-dla"], keys["use-dla-core"]) == ("1", "0")
    assert keys["model-engine-file"] == f"{job.model}_b1_dla0_{precision}.engine"
    assert ("--useDLACore=0" in texts["README.md"]) is (precision == "int8")
    assert "strongly-typed" not in keys


@pytest.mark.parametrize("use_dla", [False, True])
@pytest.mark.parametrize("name", ["onnxruntime", "triton"])
def test_the_tensorrt_of_onnxruntime_is_told_of_the_dla(
    name: str, use_dla: bool, make_job: MakeJob
) -> None:
    job = make_job(name, "orin-nx-16gb@jp6.2", "int8", use_dla=use_dla)
    texts = load_runtime(name).write(job)
    text = texts["student/config.pbtxt" if name == "triton" else "providers.json"]
    assert ("trt_dla_enable" in text) is ("trt_dla_core" in text) is use_dla


@pytest.mark.parametrize(
    ("line", "why"), [("batch-szie=1", "no key batch-szie"), ("batch-size", "batch-size")]
)
def test_a_typing_error_in_nvinfers_file_is_refused(line: str, why: str) -> None:
    assert nvinfer("# note\n[property]\noffsets=1;2;3\n") == {"offsets": "1;2;3"}
    with pytest.raises(ValueError, match=why):
        nvinfer(f"[property]\n{line}\n")


def module_of(jetpack: str) -> str:
    return {"4": "nano", "5": "xavier-nx-8gb", "6": "orin-nx-16gb", "7": "t5000"}[jetpack[0]]


@pytest.mark.parametrize("name", EVERY)
def test_every_text_of_every_version_passes_its_parser(name: str, make_job: MakeJob) -> None:
    pytest.importorskip("yaml")
    pytest.importorskip("tritonclient.grpc.model_config_pb2")
    runtime = load_runtime(name)
    firsts = [jetpacks[0] for jetpacks in runtime.profile.versions.values()] or ["4.6.1", "6.2"]
    batches = {"one": [(1, 1, 1)], "from one": [(1, 1, 1), (1, 4, 8)]}
    fitting = batches.get(runtime.profile.batches, [(1, 1, 1), (4, 4, 4), (1, 4, 8)])
    for jetpack, precision in itertools.product(firsts, ("fp32", "fp16", "int8")):
        target = f"{module_of(jetpack)}@jp{jetpack}"
        if precision not in targets(target).precisions:
            continue
        for batch in fitting:
            texts = runtime.write(make_job(name, target, precision, batch=batch))
            unchecked = read_back(texts, runtime.parsers).unchecked
            assert set(unchecked.values()) <= {GLIB}
            assert runtime.parsers.keys() <= texts.keys()


def test_nvinferserver_hands_pixels_over_as_they_are_and_reads_one_output(
    make_job: MakeJob,
) -> None:
    job = make_job("deepstream-triton", "jetson", "int8", batch=(1, 4, 8))
    runtime = load_runtime("deepstream-triton")
    texts = runtime.write(job)
    places = [name for name in texts if "inferserver" in name]
    one, two = (runtime.parsers[place](texts[place]) for place in places)
    inference = one.infer_config
    assert inference.max_batch_size == 8
    assert inference.preprocess.normalize.scale_factor == 1
    assert inference.postprocess.classification.threshold == pytest.approx(0.4)
    assert (two.input_control.operate_on_gie_id, two.infer_config.unique_id) == (1, 2)
    triton = inference.backend.triton
    folder = f"{triton.model_repo.root[0]}/{triton.model_name}"
    model = runtime.parsers[f"{folder}/config.pbtxt"](texts[f"{folder}/config.pbtxt"])
    assert [output.name for output in model.output] == ["probabilities"]
    assert model.input[0].name == inference.preprocess.tensor_name
    assert f"--saveEngine={folder}/1/{model.default_model_filename}" in texts["README.md"]
    for wrong in ("scale_facto: 1", 'scale_factor: "1"'):
        with pytest.raises(ValueError, match=r"\d+:\d+ : "):
            runtime.parsers[places[0]](texts[places[0]].replace("scale_factor: 1.0", wrong))


@pytest.mark.parametrize("batch", [(1, 1, 1), (1, 4, 8)])
def test_a_batch_that_nvinferserver_and_triton_disagree_on_is_no_configuration(
    batch: tuple[int, int, int], make_job: MakeJob
) -> None:
    pytest.importorskip("tritonclient.grpc.model_config_pb2")
    runtime = load_runtime("deepstream-triton")
    texts = dict(runtime.write(make_job("deepstream-triton", "jetson", "int8", batch=batch)))
    assert not read_back(texts, runtime.parsers, runtime.agree).unchecked
    for place in (name for name in runtime.parsers if "inferserver" in name):
        size = f"max_batch_size: {batch[2]}"
        wrong = {**texts, place: texts[place].replace(size, "max_batch_size: 2")}
        with pytest.raises(ConversionError, match=f"{place} is 2, and the model takes {batch[2]}"):
            read_back(wrong, runtime.parsers, runtime.agree)


@pytest.mark.parametrize("batch", [(1, 1, 1), (4, 4, 4), (1, 4, 8)])
@pytest.mark.parametrize("target", ["nano@jp4.6.1", "xavier-nx-8gb@jp5.1", "jetson", "x86-cpu"])
def test_triton_parses_its_configuration(
    target: str, batch: tuple[int, int, int], make_job: MakeJob
) -> None:
    text_format = pytest.importorskip("google.protobuf.text_format")
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="no tritonclient")
    job = make_job("triton", target, batch=batch)
    text = load_runtime("triton").write(job)["student/config.pbtxt"]
    config = text_format.Parse(text, schema.ModelConfig())
    is_dynamic = batch[0] != batch[2]
    own = [] if is_dynamic else [batch[0]]
    assert config.max_batch_size == (batch[2] if is_dynamic else 0)
    assert list(config.input[0].dims) == [*own, 64, 64, 3]
    kind = "TYPE_FP32" if target.startswith("nano") else "TYPE_UINT8"
    assert config.input[0].data_type == schema.DataType.Value(kind)
    # Triton takes a format of three dimensions alone
    assert bool(config.input[0].format) is is_dynamic
    assert [list(output.dims)[-1] for output in config.output] == [2, 2, 16]
    accelerators = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert bool(accelerators) is (target == "jetson")
    assert list(config.version_policy.specific.versions) == [1]
    is_archive = target.startswith(("nano", "xavier"))
    readme = load_runtime("triton").write(job)["README.md"]
    assert ("--backend-directory=/opt/tritonserver/backends" in readme) is is_archive
    for accelerator in accelerators:  # an engine without a path goes with its container
        path = accelerator.parameters["trt_engine_cache_path"]
        assert f'-v "$PWD{path}":{path} ' in load_runtime("triton").write(job)["README.md"]
    with pytest.raises(text_format.ParseError):
        text_format.Parse(text.replace("KIND_", "KIND_OF_"), schema.ModelConfig())


def test_triton_finds_graph_labels_and_outputs_where_the_configuration_says(
    jetson_bundle: Bundle,
) -> None:
    folder = jetson_bundle.folder / "runtimes" / "triton" / "student"
    graph = onnx.load(folder / "1" / "model.onnx").graph
    text = (folder / "config.pbtxt").read_text(encoding="utf-8")
    for value in (*graph.input, *graph.output):
        dims = ", ".join(str(d.dim_value) for d in value.type.tensor_type.shape.dim)
        place = text.index(f'name: "{value.name}"')
        assert f"dims: [ {dims} ]" in text[place : place + 110]
    assert (folder / "labels.txt").is_file()


def handed(folder: Path) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
    document = json.loads((folder / "golden" / "answer.json").read_text(encoding="utf-8"))
    about = document["input"]
    tensor = np.fromfile(folder / "golden" / about["file"], about["dtype"])
    return tensor.reshape(about["shape"]), document["answer"]


@pytest.mark.parametrize("name", EVERY)
def test_the_golden_tensor_gives_the_golden_answer_on_the_graph_that_the_runtime_reads(
    name: str, jetson_bundle: Bundle
) -> None:
    folder = jetson_bundle.folder / "runtimes" / name
    tensor, answer = handed(folder)
    graphs = list(folder.rglob("*.onnx")) or [jetson_bundle.model_path("int8")]
    assert len(graphs) == 1
    session = open_graph(str(graphs[0]), 1, in_float=True)
    outputs = [output.name for output in session.get_outputs()]
    found = dict(zip(outputs, session.run(None, {"image": tensor}), strict=True))
    if "logits" in found:
        np.testing.assert_allclose(found["logits"][0], answer["logits"], atol=0.3)
        scaled = found["logits"][0] / answer["temperature"]
        probability = np.exp(scaled) / np.exp(scaled).sum()
    else:
        assert outputs == ["probabilities"]
        probability = found["probabilities"][0]
    assert probability.argmax() == answer["index"]
    assert probability.max() == pytest.approx(answer["probability"], abs=0.02)
    assert jetson_bundle.classes[answer["index"]] == answer["label"]
    assert answer["unknown_below"] == jetson_bundle.confidence.reject_threshold


@pytest.mark.parametrize("name", EVERY)
def test_a_readme_is_short_and_names_version_and_command(name: str, jetson_bundle: Bundle) -> None:
    text = (jetson_bundle.folder / "runtimes" / name / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 27
    version = load_runtime(name).profile.versions
    assert text.count("```") == 2
    assert any(word in text for word in version) or name == "trtexec"
    for script in (jetson_bundle.folder / "runtimes" / name).glob("*.sh"):
        subprocess.run(["sh", "-n", script], check=True)


def test_the_onnxruntime_example_classifies_the_golden_picture_on_the_cpu(
    jetson_bundle: Bundle,
) -> None:
    folder = jetson_bundle.folder / "runtimes" / "onnxruntime"
    assert len((folder / "classify.py").read_text(encoding="utf-8").splitlines()) < 48
    ran = subprocess.run(
        [sys.executable, "classify.py", "golden/picture.png"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    _, answer = handed(folder)
    path, label, probability = ran.stdout.rsplit(" ", 2)[0], *ran.stdout.split()[-2:]
    assert path == "golden/picture.png:"
    assert label == answer["label"]
    assert float(probability) == pytest.approx(answer["probability"], abs=0.05)
    # this wheel has the CPU alone, and the configuration names TensorRT first
    ran_on, warning = ran.stderr.splitlines()
    assert ran_on == "runs on CPUExecutionProvider"
    assert warning.startswith("warning: TensorrtExecutionProvider is not there: README.md says")
    assert "https://pypi.jetson-ai-lab.dev/jp6/" in (folder / "README.md").read_text()


TRTEXEC = """#!/bin/sh
echo "$@" >> {log}
case "$*" in *--exportOutput=*) cp {output} runtimes/trtexec/output.json;; esac
"""


@pytest.mark.parametrize("is_right", [True, False])
def test_the_trtexec_script_builds_then_runs_the_golden_tensor_and_judges_what_comes_out(
    is_right: bool, jetson_bundle: Bundle, tmp_path: Path
) -> None:
    folder, log = jetson_bundle.folder / "runtimes" / "trtexec", tmp_path / "log"
    _, answer = handed(folder)
    values = answer["logits"] if is_right else answer["logits"][::-1]
    document = [{"name": "embedding", "values": [1]}, {"name": "logits", "values": values}]
    (tmp_path / "output").write_text(json.dumps(document), encoding="utf-8")
    stand_in = tmp_path / "trtexec"
    stand_in.write_text(TRTEXEC.format(log=log, output=tmp_path / "output"), encoding="utf-8")
    stand_in.chmod(0o755)
    environment = {"TRTEXEC": str(stand_in), "PYTHON": sys.executable, "PATH": "/usr/bin:/bin"}
    ran = subprocess.run(["sh", folder / "run.sh"], env=environment, capture_output=True, text=True)
    (folder / "output.json").unlink()
    build, run = log.read_text(encoding="utf-8").splitlines()
    engine = build.split()[1].removeprefix("--saveEngine=")
    assert build.startswith(f"--onnx=model.int8.onnx --saveEngine={engine} --int8 --fp16")
    assert f"--saveEngine={engine} " in (jetson_bundle.folder / "build.sh").read_text()
    assert f"--loadEngine={engine}" in run
    assert "--loadInputs=image:runtimes/trtexec/golden/input.bin" in run
    assert (ran.returncode == 0) is is_right, ran.stderr
