"""Real, small objects that tests share: the embedded teacher, a run directory, silence."""

import contextlib
import dataclasses
import functools
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from xdist.scheduler import LoadFileScheduling

from dfkd_edge.artifacts import ModelFile, StudentArtifact, save_tensors
from dfkd_edge.bundles.bundle import BundleContents, write_bundle
from dfkd_edge.bundles.parts import GoldenSet
from dfkd_edge.class_names import ClassNames, parse_class_names
from dfkd_edge.config.settings import TeacherConfig
from dfkd_edge.networks.teacher import Teacher, load_teacher
from dfkd_edge.runs.context import StageContext
from dfkd_edge.runs.run_dir import open_run
from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.runtime.session import OnnxSession, SessionRequest
from dfkd_edge.target_profiles.profile import Precision, TargetProfile
from tests.fixtures.typed import student_settings

pytest_plugins = ["tests.fixtures.exported", "tests.fixtures.synthesis"]


SHARED = {
    "finished_run": "(finished_run|exported_copy|exported): Path|jetson_bundle: Bundle",
    "workspace": "tiny_(workspace|run): Path",
}
"""Runs that take many seconds to make, and how a file shows that it uses one."""


def run_or_file(nodeid: str) -> str:
    """Name the shared run that a test's file uses, else the file."""
    file = nodeid.partition("::")[0]
    text = (Path(__file__).parents[1] / file).read_text(encoding="utf-8")
    return next((run for run, shown in SHARED.items() if re.search(shown, text)), file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Send files of one run to one worker; loadgroup does not (pytest 9.2 with xdist 3.8)."""
    scheduler = LoadFileScheduling(config, log)
    scheduler._split_scope = run_or_file
    return scheduler


class SilentProgress:
    """Counts what a stage reports."""

    def __init__(self) -> None:
        self.count = 0

    def advance(self, count: int = 1, note: str = "") -> None:
        self.count += count


class SilentReporter:
    """Keeps stage names instead of printing them."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    @contextlib.contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Iterator[SilentProgress]:
        self.stages.append(name)
        yield SilentProgress()

    def note(self, text: str) -> None:
        self.stages.append(text)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)  # two workers share two cores


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give the session a cache: what a user's holds hides no fault, and is not touched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def quickstart() -> Path:
    return Path(__file__).parents[1] / "examples" / "quickstart" / "classes.txt"


@pytest.fixture(scope="session")
def classes() -> ClassNames:
    return parse_class_names("dog\nhouse\nperson\n", "three classes")


@pytest.fixture(scope="session")
def teacher(classes: ClassNames) -> Teacher:
    return load_teacher(TeacherConfig(), classes)


@pytest.fixture
def context(tmp_path: Path) -> Iterator[StageContext]:
    with open_run(tmp_path / "run", "key", resume=True, exist_ok=False) as run_dir:
        yield StageContext(run_dir, SilentReporter(), seed=0, device="cpu")


TOWER_WORDS = (
    *("a", "of", "style", "photo", "the", "in", "and", "big", "red", "new", "old", "warm", "cold"),
    *("dog", "house", "person", "jaguar", "cat", "bronze", "velvet", "bright", "dark", "foggy"),
)
SMALL_TOWERS: dict[str, dict[str, Any]] = {
    "clip": {"text": {}, "model": {}},
    "mobileclip": {"text": {"no_causal_mask": True}, "model": {"custom_text": True}},
    "siglip": {
        "text": {
            "hf_tokenizer_name": "local",
            "tokenizer_kwargs": {"clean": "canonicalize"},
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
        },
        "model": {"custom_text": True, "init_logit_bias": -10},
    },
}
"""What sets the text towers of these classes apart; the sizes are a thousandth of the real ones."""


def write_sentencepiece_tokenizer(folder: Path) -> int:
    """Write a unigram tokenizer of the kind that SigLIP has; returns its vocabulary's size."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = [(c, -9.0) for c in "abcdefghijklmnopqrstuvwxyz▁"]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *letters]  # unk_id is a place here
    pieces += [(f"▁{word}", -2.0) for word in TOWER_WORDS if len(word) > 1]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return len(pieces)


@pytest.fixture(scope="session")
def small_tower(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Make local open_clip folders: real classes, small sizes, random weights."""
    import open_clip
    from safetensors.torch import save_model

    @functools.cache
    def make(kind: str) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        vision = {"layers": 1, "width": 32}
        text = {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
        if kind == "siglip":
            text["vocab_size"] = write_sentencepiece_tokenizer(folder)
        settings = {
            "embed_dim": 16,
            "vision_cfg": {**vision, "image_size": 32, "patch_size": 16, "head_width": 16},
            "text_cfg": {**text, **SMALL_TOWERS[kind]["text"]},
            **SMALL_TOWERS[kind]["model"],
        }
        document = {"model_cfg": settings, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
        (folder / "open_clip_config.json").write_text(json.dumps(document), encoding="utf-8")
        torch.manual_seed(0)
        model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
        save_model(model, str(folder / "open_clip_model.safetensors"))
        return folder

    return make


TINY_SIDE_PX, TINY_WIDTH = 16, 12
TINY_CLASSES = ("dog", "great dane", "house")
TINY_TARGET = TargetProfile(
    name="tiny-board",
    module="tiny-board",
    jetpack=None,
    family="arm",
    backend="onnxruntime",
    python="3.11",
    recommended_opset=17,
    max_opset=21,
    max_ir=10,
    precisions=("fp32", "int8"),
)


def write_tiny_graph(
    path: Path, *, quantized: bool = False, swaps_channels: bool = False, gain: float = 1 / 64
) -> None:
    """Write a classifier of a few weights with the names and the layout that exports have."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    weights: dict[str, Any] = {
        "gain": np.float32(gain),
        "kernel": random.normal(size=(8, 3, 3, 3)).astype(np.float32),
        "bias": random.normal(size=8).astype(np.float32),
        "projection": random.normal(size=(8, TINY_WIDTH)).astype(np.float32),
        "text_head": random.normal(size=(TINY_WIDTH, len(TINY_CLASSES))).astype(np.float32),
        "logit_scale": np.float32(10),
        "channels": np.array([2, 1, 0] if swaps_channels else [0, 1, 2]),
        "scale": np.float32(4 / 127),  # pixels of 255 reach the last step with the usual gain
        "zero": np.int8(0),
    }
    conv_input = "steps" if quantized else "scaled"
    nodes: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Cast", ["image"], "float", {"to": TensorProto.FLOAT}),  # TensorRT moves no uint8
        ("Gather", ["float", "channels"], "ordered", {"axis": 3}),
        ("Transpose", ["ordered"], "planes", {"perm": [0, 3, 1, 2]}),
        ("Mul", ["planes", "gain"], "scaled", {}),
        ("QuantizeLinear", ["scaled", "scale", "zero"], "coarse", {}),
        ("DequantizeLinear", ["coarse", "scale", "zero"], "steps", {}),
        ("Conv", [conv_input, "kernel", "bias"], "maps", {"strides": [2, 2]}),
        ("Relu", ["maps"], "positive", {}),
        ("GlobalAveragePool", ["positive"], "pooled", {}),
        ("Flatten", ["pooled"], "features", {}),
        ("MatMul", ["features", "projection"], "projected", {}),
        ("ReduceL2", ["projected"], "length", {"axes": [1]}),
        ("Div", ["projected", "length"], "embedding", {}),
        ("MatMul", ["embedding", "text_head"], "cosines", {}),
        ("Mul", ["cosines", "logit_scale"], "logits", {}),
        ("Softmax", ["logits"], "probabilities", {"axis": 1}),
    ]
    kept = [n for n in nodes if quantized or n[0] not in ("QuantizeLinear", "DequantizeLinear")]
    shapes = {"logits": len(TINY_CLASSES), "probabilities": len(TINY_CLASSES)}
    graph = helper.make_graph(
        [helper.make_node(op, ins, [out], **attributes) for op, ins, out, attributes in kept],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, *[TINY_SIDE_PX] * 2, 3])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, width])
            for name, width in {**shapes, "embedding": TINY_WIDTH}.items()
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    # 17 is the last opset in which ReduceL2 has its axes as an attribute; its onnx wrote IR 8
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


def tiny_images(num: int = 12) -> NDArray[np.uint8]:
    """Plain colours with a little noise, so that swapped channels show."""
    random = np.random.default_rng(1)
    colours = random.integers(0, 256, (num, 1, 1, 3))
    noise = random.integers(-20, 20, (num, TINY_SIDE_PX, TINY_SIDE_PX, 3))
    clipped: NDArray[np.uint8] = np.clip(colours + noise, 0, 255).astype(np.uint8)
    return clipped


def make_tiny_contents(folder: Path) -> BundleContents:
    """Make everything of a bundle in a folder, with models of a few weights."""
    images = tiny_images()
    logits, models = {}, {}
    precisions: tuple[Precision, ...] = ("fp32", "int8")
    for precision in precisions:
        path = folder / f"{precision}.onnx"
        write_tiny_graph(path, quantized=precision == "int8")
        logits[precision] = OnnxSession(SessionRequest(path)).run(images).logits
        models[precision] = ModelFile(path, "onnx", precision, {"opset": 17})
    student = StudentArtifact(
        folder, student_settings(image_size_px=TINY_SIDE_PX, classes=TINY_CLASSES)
    )
    student.save_settings()
    save_tensors(student.weights, {"weight": np.zeros(3, np.float32)})
    return BundleContents(
        target=TINY_TARGET,
        precision="int8",
        models=models,
        class_names=TINY_CLASSES,
        student=student,
        text_head=np.eye(TINY_WIDTH, len(TINY_CLASSES), dtype=np.float32),
        golden=GoldenSet(
            images=images,
            teacher_logits=logits["fp32"],
            student_logits=logits["fp32"],
            precision_logits={"int8": logits["int8"]},
        ),
        calibration={"method": "minmax", "images": "500 images", "ranges": {"image": [0, 1]}},
        recipe="run it\n",
        licenses="Apache-2.0\n",
    )


@pytest.fixture(scope="session")
def tiny_contents(tmp_path_factory: pytest.TempPathFactory) -> BundleContents:
    return make_tiny_contents(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny_bundle(tmp_path: Path, tiny_contents: BundleContents) -> Bundle:
    """Write a bundle that every check passes."""
    return write_bundle(tmp_path / "bundle", tiny_contents)


@pytest.fixture
def fp16_bundle(tmp_path: Path, tiny_contents: BundleContents) -> Bundle:
    """Write a bundle for a device whose TensorRT makes FP16 of the FP32 graph."""
    contents = dataclasses.replace(
        tiny_contents,
        target=dataclasses.replace(TINY_TARGET, backend="tensorrt", precisions=("fp32", "fp16")),
        precision="fp16",
        models={"fp32": tiny_contents.models["fp32"]},
        golden=dataclasses.replace(tiny_contents.golden, precision_logits={}),
    )
    return write_bundle(tmp_path / "fp16", contents)


@pytest.fixture(scope="session")
def tiny_graph() -> Callable[..., None]:
    return write_tiny_graph


@pytest.fixture
def read_only() -> Iterator[Callable[[Path], None]]:
    """Return what makes a folder read-only, for root too, until the test ends."""
    mounted, closed = list[Path](), list[Path]()

    def make(folder: Path) -> None:
        if os.geteuid():  # to root the bits of a folder mean nothing
            folder.chmod(0o555)
            closed.append(folder)
            return
        options = ("--bind", "-o", "ro")
        if subprocess.run(["mount", *options, folder, folder], capture_output=True).returncode:
            pytest.skip("this root may not mount a file system")
        mounted.append(folder)

    yield make
    for folder in closed:
        folder.chmod(0o755)
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)
