"""An engine of an earlier bundle is none of this one's: names of engines follow the graph."""

import dataclasses
import re
from pathlib import Path

import pytest

from dfkd_edge.artifacts import ModelFile, load_tensors
from dfkd_edge.bundles.recipe import engine_content
from dfkd_edge.handover.add import model_of
from dfkd_edge.handover.lookup import load_runtime
from dfkd_edge.handover.make import RuntimeFolders
from dfkd_edge.plugins import load_exporter
from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.target_profiles.lookup import load_target
from dfkd_edge.target_profiles.profile import Precision
from tests.conftest import SilentReporter
from tests.handover.conftest import EVERY, MakeJob

BUILDS = sorted(set(EVERY) - {"ros2"})
"""The node of ROS 2 runs the code of check.pyz, whose cache is keyed by the graph's SHA-256."""
ENGINE = re.compile(r"[\w./-]*(?:\.engine|\.plan)\b|\bengines-\w+")


def named(texts: list[str]) -> set[str]:
    """Every engine, or folder of them, that texts name."""
    return {Path(name).name for text in texts for name in ENGINE.findall(text)}


def engines(folder: Path) -> set[str]:
    """Every engine that the files of a runtime name, or that will be named after its graph."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    binary = (".onnx", ".png", ".bin")
    found = named([p.read_text(encoding="utf-8") for p in files if p.suffix not in binary])
    if folder.name == "jetson-inference":  # as tensorNet.cpp names it
        found |= {f"{p.name}.1.1.8602.GPU.FP16.engine" for p in files if p.suffix == ".onnx"}
    return found


@pytest.mark.parametrize("name", sorted(set(BUILDS) - {"jetson-inference"}))
def test_every_engine_that_the_texts_of_a_runtime_name_is_of_one_graph(
    name: str, make_job: MakeJob
) -> None:
    job, write = make_job(name, precision="int8"), load_runtime(name).write
    first = named(list(write(job).values()))
    assert first
    assert all(job.content in engine for engine in first)
    assert not first & named(list(write(dataclasses.replace(job, content="ba9876543210")).values()))


@pytest.mark.parametrize("name", BUILDS)
def test_the_engines_of_a_bundle_are_named_after_the_very_graph_that_a_runtime_reads(
    name: str, jetson_bundle: Bundle
) -> None:
    folder, model = jetson_bundle.folder / "runtimes" / name, model_of(jetson_bundle)
    graphs = [*folder.rglob("*.onnx"), model.models["int8"]]
    runs_int8 = "int8" in load_runtime(name).profile.precisions
    precision: Precision = "int8" if runs_int8 else "fp16"
    content = engine_content(graphs[0], precision, model.batch, model.target)
    assert engines(folder)
    assert all(content in engine for engine in engines(folder))


@pytest.mark.slow
def test_other_classes_give_every_engine_another_name_and_the_same_bundle_the_same(
    jetson_bundle: Bundle, tmp_path: Path
) -> None:
    """The classes are swapped as `classes swap` does it: the head of every graph."""
    held = model_of(jetson_bundle)
    head_DK = load_tensors(jetson_bundle.folder / "text_head.safetensors")["text_head"]
    reordered, models = (head_DK[:, ::-1].copy(), held.classes[::-1]), {}
    for precision, path in held.models.items():
        graph, place = ModelFile(path, "onnx", precision, {}), tmp_path / path.name
        models[precision] = load_exporter("head").export(graph, *reordered, place).path
    swapped = dataclasses.replace(held, models=models, classes=held.classes[::-1])
    for kind, model in {"again": held, "swapped": swapped}.items():
        work = tmp_path / kind
        work.mkdir()
        RuntimeFolders(model, work).make([load_runtime(n) for n in BUILDS], SilentReporter())
    for name in BUILDS:
        first = engines(jetson_bundle.folder / "runtimes" / name)
        again, other = (engines(tmp_path / k / "runtimes" / name) for k in ("again", "swapped"))
        assert first == again, name
        assert not first & other, name


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
