"""An engine of an earlier bundle is none of this one's: names of engines follow the graph."""

import dataclasses
import re
from pathlib import Path

import pytest

from dfkd_edge.artifacts import ModelFile, load_tensors
from dfkd_edge.bundles.recipe import engine_content
from dfkd_edge.handover.add import _model_of
from dfkd_edge.handover.lookup import load_runtime
from dfkd_edge.handover.make import RuntimeFolders
from dfkd_edge.plugins import load_exporter
from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.target_profiles.lookup import load_target
from tests.conftest import SilentReporter
from tests.handover.conftest import EVERY

BUILDS = sorted(set(EVERY) - {"ros2"})
"""The node of ROS 2 runs the code of check.pyz, whose cache is keyed by the graph's SHA-256."""
ENGINE = re.compile(r"[\w./-]*(?:\.engine|\.plan)\b|\bengines-\w+")


def engines(folder: Path) -> set[str]:
    """Every engine, or folder of them, that a runtime's files name or will be named after."""
    found = set()
    for path in folder.rglob("*"):
        if path.suffix == ".onnx" and folder.name == "jetson-inference":
            found.add(f"{path.name}.1.1.8602.GPU.FP32.engine")  # as tensorNet.cpp names it
        elif path.is_file() and path.suffix not in (".onnx", ".png", ".bin"):
            found |= {Path(name).name for name in ENGINE.findall(path.read_text(encoding="utf-8"))}
    return found


@pytest.fixture(scope="module")
def made(jetson_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runtimes of a bundle, of the same once more, and of its classes in another order."""
    held, work = _model_of(jetson_bundle), tmp_path_factory.mktemp("swapped")
    head_DK = load_tensors(jetson_bundle.folder / "text_head.safetensors")["text_head"]
    models = {}
    for precision, path in held.models.items():
        graph = ModelFile(path, "onnx", precision, {})
        reordered = (head_DK[:, ::-1].copy(), held.classes[::-1])
        models[precision] = load_exporter("head").export(graph, *reordered, work / path.name).path
    swapped = dataclasses.replace(held, models=models, classes=held.classes[::-1])
    folders = {"first": jetson_bundle.folder / "runtimes"}
    for name, model in {"again": held, "swapped": swapped}.items():
        work = tmp_path_factory.mktemp(name)
        RuntimeFolders(model, work).make([load_runtime(n) for n in BUILDS], SilentReporter())
        folders[name] = work / "runtimes"
    return folders


@pytest.mark.parametrize("name", BUILDS)
def test_other_classes_give_every_engine_another_name_and_the_same_bundle_the_same(
    name: str, made: dict[str, Path]
) -> None:
    first, again, swapped = (engines(made[kind] / name) for kind in ("first", "again", "swapped"))
    assert first
    assert first == again
    assert not first & swapped


def test_whatever_an_engine_is_built_with_is_in_its_name(tmp_path: Path) -> None:
    graph, target = tmp_path / "model.onnx", load_target("jetson")
    graph.write_bytes(b"graph")
    first = engine_content(graph, "int8", (1,), target)
    assert engine_content(graph, "int8", (1, 1, 1), target) == first
    newer = dataclasses.replace(target, tensorrt="10.99")
    on_dla = dataclasses.replace(target, use_dla=True)
    others = {
        engine_content(graph, "fp16", (1,), target),
        engine_content(graph, "int8", (1, 4, 8), target),
        engine_content(graph, "int8", (1,), newer),
        engine_content(graph, "int8", (1,), on_dla),
    }
    graph.write_bytes(b"grapi")
    others.add(engine_content(graph, "int8", (1,), target))
    assert len({first, *others}) == 6
