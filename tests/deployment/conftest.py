"""A tiny classifier as an ONNX graph, float or with Q/DQ nodes; a small real run, exported."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from PIL import Image
from typer.testing import CliRunner

from dfkd_edge.artifacts import StudentArtifact, load_tensors
from dfkd_edge.class_names import ClassNames
from dfkd_edge.cli import app
from dfkd_edge.config import PipelineConfig, SynthesisConfig
from dfkd_edge.config_file import to_toml
from dfkd_edge.deployment import precision_repair
from dfkd_edge.distillation import qat
from dfkd_edge.run_dir import atomic_write, open_run
from dfkd_edge.students import MINI, build_student, student_tensors
from dfkd_edge.synthesis.surrogate_store import (
    read_surrogates,
    shard_path,
    write_selection,
    write_shard,
    write_summary,
)
from dfkd_edge.teacher import Teacher
from dfkd_edge.validation import evaluation_images

WIDTH = 16
SIDE_PX, SHARD, NUM_SHARDS = 64, 128, 5


class Net:
    """A residual classifier in a few nodes: Cast, Conv, Conv + shortcut, pooling, Gemm."""

    def __init__(
        self,
        *,
        int8: bool = False,
        asymmetric: bool = False,
        quantized_branch: bool = False,
        narrow: bool = False,
    ) -> None:
        self.int8, self.asymmetric, self.narrow = int8, asymmetric, narrow
        self.quantized_branch = quantized_branch or asymmetric
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, NDArray[np.generic]] = {}
        self.random = np.random.default_rng(0)

    def build(self) -> ModelProto:
        self.add("Cast", ["image"], "cast", to=TensorProto.FLOAT)
        self.add("Transpose", ["cast"], "nchw", perm=[0, 3, 1, 2])
        first = self.weighted("Conv", "nchw", "conv1", (WIDTH, 3, 3, 3), pads=[1, 1, 1, 1])
        self.add("Relu", [first], "relu1")
        shortcut = self.activation("relu1")
        branch = self.weighted("Conv", "relu1", "conv2", (WIDTH, WIDTH, 1, 1))
        if self.quantized_branch:
            branch = self.activation(branch)
        self.add("Add", [branch, shortcut], "sum")
        self.add("GlobalAveragePool", [self.activation("sum")], "pool")
        self.add("Flatten", ["pool"], "features")
        self.weighted("Gemm", "features", "logits", (4, WIDTH), transB=1)
        if self.narrow:
            self.weighted("Conv", "relu1", "narrow", (6, WIDTH, 3, 3))
            self.weighted("Conv", "narrow", "narrower", (6, 6, 3, 3))
        image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 8, 8, 3])
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 4])
        initializers = [numpy_helper.from_array(v, k) for k, v in self.weights.items()]
        graph = helper.make_graph(self.nodes, "net", [image], [logits], initializers)
        opset = helper.make_opsetid("", 13)
        return helper.make_model(graph, opset_imports=[opset], ir_version=7)

    def add(self, op_type: str, inputs: list[str], output: str, **attributes: Any) -> str:
        name = f"{op_type}_{output}"
        node = helper.make_node(op_type, inputs, [output], name=name, **attributes)
        self.nodes.append(node)
        return output

    def activation(self, name: str) -> str:
        """Put a Q/DQ pair on a tensor, once."""
        if not self.int8 or f"{name}_dq" in {node.output[0] for node in self.nodes}:
            return f"{name}_dq" if self.int8 else name
        zero = np.array(7, np.uint8) if self.asymmetric else np.array(0, np.int8)
        return self.quantizers(name, np.array(0.05, np.float32), zero)

    def quantizers(self, name: str, scale: NDArray[np.generic], zero: NDArray[np.generic]) -> str:
        self.weights |= {f"{name}_scale": scale, f"{name}_zero": zero}
        axis = {"axis": 0} if scale.size > 1 else {}
        arguments = [f"{name}_scale", f"{name}_zero"]
        self.add("QuantizeLinear", [name, *arguments], f"{name}_q", **axis)
        return self.add("DequantizeLinear", [f"{name}_q", *arguments], f"{name}_dq", **axis)

    def weighted(
        self, op_type: str, source: str, output: str, shape: tuple[int, ...], **attributes: Any
    ) -> str:
        name = f"{output}_weight"
        weight = self.random.normal(size=shape).astype(np.float32)
        self.weights |= {name: weight, f"{output}_bias": np.zeros(shape[0], np.float32)}
        if self.int8:
            source = self.activation(source)
            scale = np.abs(weight).reshape(shape[0], -1).max(1) / 127
            self.quantizers(name, scale.astype(np.float32), np.zeros(shape[0], np.int8))
            name = f"{name}_dq"
        return self.add(op_type, [source, name, f"{output}_bias"], output, **attributes)


@pytest.fixture
def small_net() -> Callable[..., ModelProto]:
    return lambda **options: Net(**options).build()


@contextlib.contextmanager
def only_few_images() -> Iterator[None]:
    """Prove and repair on so few images that an export takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation_images, "WANTED_IMAGES", 30)
        patch.setattr(qat, "NUM_STEPS", 4)
        patch.setattr(qat, "BATCH_SIZE", 8)
        patch.setattr(precision_repair, "MAX_RANKED", 4)
        yield


@pytest.fixture
def few_images() -> Iterator[None]:
    with only_few_images():
        yield


def write_surrogates(folder: Path) -> list[Path]:
    """Blocks of colour whose tint tells the class."""
    rng = np.random.default_rng(0)
    files = []
    for number in range(NUM_SHARDS):
        labels = (np.arange(SHARD) + number * SHARD) % 3
        tint = 90 * np.eye(3, dtype=int)[labels][:, None, None]
        blocks = rng.integers(0, 160, (SHARD, 8, 8, 3)) + tint
        images = np.repeat(np.repeat(blocks.astype(np.uint8), 8, 1), 8, 2)
        candidates = {
            "images": images,
            "class_index": labels.astype(np.int64),
            "style_index": rng.integers(0, 4, SHARD),
            "embeddings": np.zeros((SHARD, 8), np.float32),
            "probability": np.ones(SHARD, np.float32),
            "drawing_index": np.full(SHARD, -1),
            "is_recognised": np.ones(SHARD, np.bool_),
        }
        write_shard(folder, number, "key", candidates)
        files.append(shard_path(folder, number))
    return files


@pytest.fixture(scope="session")
def finished_run(
    tmp_path_factory: pytest.TempPathFactory, teacher: Teacher, classes: ClassNames
) -> Path:
    """A small but real run: coloured surrogates, the default student, the embedded teacher."""
    path = tmp_path_factory.mktemp("runs") / "run"
    config = PipelineConfig(
        classes="classes.txt", synthesis=SynthesisConfig(num_images=SHARD * NUM_SHARDS)
    )
    with open_run(path, "key", resume=True, exist_ok=False) as run:
        atomic_write(path / "classes.txt", "".join(f"{name}\n" for name in classes.names))
        atomic_write(path / "config.toml", to_toml(config))
        folder = run.stage_dir("surrogates")
        files, share = write_surrogates(folder), config.synthesis.heldout_share
        files.append(write_selection(folder, NUM_SHARDS, share, "key"))
        made = read_surrogates(folder, NUM_SHARDS, classes.names, "key")
        run.complete("surrogates", "key", [*files, write_summary(folder, made)])
        torch.manual_seed(0)
        student = build_student(MINI, "pretrained", teacher.head_KD, teacher.logit_scale, SIDE_PX)
        settings = {
            "student": MINI,
            "timm_name": student.timm_name,
            "image_size_px": SIDE_PX,
            "classes": list(classes.names),
            "logit_scale": student.logit_scale,
            "embed_dim": teacher.embed_dim,
            "init": "pretrained",
            "num_steps": 0,
            "teacher": "mini",
            "num_parameters": student.num_parameters,
            "teacher_num_parameters": teacher.num_image_parameters,
        }
        artifact = StudentArtifact(run.stage_dir("student"), settings)
        atomic_write(artifact.weights, student_tensors(student))
        run.complete("student", "key", [artifact.weights, artifact.save_settings()])
    return path


@pytest.fixture(scope="session")
def exported(finished_run: Path) -> tuple[Path, dict[str, Any]]:
    """The bundle of the finished run and what export said; tests write into copies."""
    flags = ("--target", "x86-cpu", "--max-drop", "1", "--json")
    with only_few_images():
        result = CliRunner().invoke(app, ["export", str(finished_run), *flags])
    assert result.exit_code == 0, result.exception
    return finished_run / "bundles" / "x86-cpu", json.loads(result.stdout)


@pytest.fixture
def pictures(finished_run: Path, tmp_path: Path) -> Path:
    tensors = load_tensors(finished_run / "surrogates" / "shard-00000.safetensors")
    for number in range(12):
        label = ("dog", "house", "person")[tensors["class_index"][number]]
        folder = tmp_path / "data" / ("day" if number < 6 else "night") / label
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - tensors["images"][number]).save(folder / f"{number}.png")
    return tmp_path / "data"


@pytest.fixture
def moved(tmp_path: Path) -> Callable[[Path], Path]:
    """Return what copies a bundle to a machine where its run is not."""

    def move(bundle: Path) -> Path:
        copy = Path(shutil.copytree(bundle, tmp_path / "moved"))
        manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
        manifest["provenance"]["run"] = "/nowhere"
        (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        return copy

    return move
