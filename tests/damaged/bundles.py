"""Bundles whose files were damaged and hashed anew: what is left to refuse them is their readers.

The first byte of an input says which file of the bundle it is.
"""

import dataclasses
import functools
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

from dfkd_edge.artifacts import StudentArtifact
from dfkd_edge.bundles.bundle import write_bundle
from dfkd_edge.bundles.opening import open_bundle
from dfkd_edge.bundles.origin import calibrated_images, graphs, measured_again, read_origin
from dfkd_edge.bundles.predict import PredictRequest, classify_pictures
from dfkd_edge.config.settings import ExportConfig, TeacherConfig
from dfkd_edge.conversion.graph_view import GraphView, read_model
from dfkd_edge.errors import faults_as_errors
from dfkd_edge.report.page import write_report
from dfkd_edge.results.codec import to_json
from dfkd_edge.results.confidence import FittedConfidence
from dfkd_edge.results.kept import kept_checks, require_passed
from dfkd_edge.runtime import check
from dfkd_edge.runtime.bundle_files import CHECK, MANIFEST, VALIDATION
from dfkd_edge.runtime.bundle_manifest import sealed
from dfkd_edge.runtime.graph_guard import read_outline
from dfkd_edge.runtime.printer import Printer
from dfkd_edge.runtime.safe_files import file_sha256
from dfkd_edge.runtime.session import OnnxSession, SessionRequest
from tests.conftest import TINY_SIDE_PX, make_tiny_contents, write_tiny_graph
from tests.damaged import mutations
from tests.damaged.targets import Target
from tests.fixtures.ladders import confidence, gate, ladder


@functools.cache
def whole_bundle() -> dict[str, bytes]:
    """Return the files of a bundle that every check passes, by their names."""
    config, teacher = to_json(ExportConfig()), to_json(TeacherConfig())
    with tempfile.TemporaryDirectory() as folder:
        made = make_tiny_contents(Path(folder))
        origin = {"teacher": teacher, "config": config, "prompts": [None] * 3, "seed": 0}
        fitted = to_json(confidence())
        contents = dataclasses.replace(
            made,
            provenance={**origin, "run": "/nowhere", "lint_warnings": [], "seconds": 3.5},
            validation=ladder(classes=made.class_names, gate=gate()).to_json(),
            confidence={name: fitted[name] for name in FittedConfidence.__dataclass_fields__},
        )
        bundle = write_bundle(Path(folder) / "bundle", contents).folder
        files = (path for path in bundle.rglob("*") if path.is_file())
        return {path.relative_to(bundle).as_posix(): path.read_bytes() for path in sorted(files)}


def written(content: bytes, folder: Path) -> tuple[Path, str]:
    """Write the bundle with one file replaced, and its manifest sealed again."""
    files = dict(whole_bundle())
    names = [name for name in sorted(files) if name != CHECK]
    name = names[(content[:1] or b"\0")[0] % len(names)]
    files[name] = content[1:]
    for file, raw in files.items():
        path = folder / "bundle" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
    path = folder / "bundle" / MANIFEST
    try:
        manifest = json.loads(files[MANIFEST])
        if name != MANIFEST:
            entry = {"sha256": file_sha256(folder / "bundle" / name), "bytes": len(content) - 1}
            manifest["files"][name] = entry
        path.write_bytes(sealed(manifest))
    except (ValueError, RecursionError, AttributeError, TypeError):
        path.write_bytes(files[MANIFEST])
    return folder / "bundle", name


def read_on_host(content: bytes, folder: Path) -> None:
    """Do with a bundle what `check`, `predict` and `report` do, but for the student."""
    place, _ = written(content, folder)
    bundle = open_bundle(place)
    read_origin(bundle)
    calibrated_images(bundle)
    measured_again(bundle)
    for model in graphs(bundle):
        GraphView(read_model(model.path)).depth()
    with faults_as_errors():
        bundle.golden()
    StudentArtifact.load(place / "student")
    kept_checks(place)
    card = PredictRequest(images=(str(place / "test_card.png"),), num_threads=1)
    answer = classify_pictures(place, card)
    json.dumps(answer, allow_nan=False)
    write_report(place, say=lambda line: None)
    if (place / VALIDATION).is_file():
        require_passed(bundle)


def read_on_device(content: bytes, folder: Path) -> None:
    """Check a bundle as check.pyz does, below the net of its `main`."""
    place, _ = written(content, folder)
    words = ["--bundle", str(place), "--duration", "0", "--precision", "all", "--threads", "1"]
    options = check._parser().parse_args([*words, "--backend", "onnxruntime"])
    result = check.BundleCheck(options, Printer(quiet=True, to_stderr=True)).run()
    check._keep_result(result, options, Printer(quiet=True, to_stderr=True))
    text = (place / "result.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=lambda word: 1 / 0) == json.loads(text)


def bundles(folder: Path) -> Iterator[bytes]:
    """Every file of the bundle."""
    names = [name for name in sorted(whole_bundle()) if name != CHECK]
    for number, name in enumerate(names):
        yield bytes([number]) + whole_bundle()[name]


def damage_file(content: bytes, rng: random.Random) -> bytes:
    """Damage a file of a bundle in its form."""
    if content[:1] == b"{":
        return mutations.damage_json(content, rng)
    if content[:2] == b"PK":
        return mutations.damage_archive(content, rng)
    if content[:4] == b"\x89PNG":
        return mutations.damage_png(content, rng)
    if content[8:9] == b"{":
        return mutations.damage_tensors(content, rng)
    return damage_graph(content, rng)


def damage_graph(content: bytes, rng: random.Random) -> bytes:
    """Damage an ONNX graph in its fields; what is none, in its bytes."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception:  # protobuf's errors differ by its implementation
        return mutations.flip(content, rng)
    if not model.graph.node:
        return mutations.flip(content, rng)
    graph, action = model.graph, rng.randrange(7)
    node = rng.choice(graph.node)
    if action == 0 and graph.initializer:
        tensor = rng.choice(graph.initializer)
        tensor.dims.append(rng.choice((0, -1, 1, 2**31, 2**62)))
    elif action == 1 and graph.initializer:
        rng.choice(graph.initializer).data_type = rng.randrange(-1, 30)
    elif action == 2:
        node.op_type = rng.choice(("Tile", "Expand", "Range", "ConstantOfShape", "", "Conv", "Pow"))
    elif action == 3 and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(("", "image", "logits", "gain"))
    elif action == 4:
        graph.node.remove(node)
    elif action == 5 and node.attribute:
        rng.choice(node.attribute).i = rng.choice((-1, 0, 2**31, 2**62))
    else:
        dims = rng.choice([*graph.input, *graph.output]).type.tensor_type.shape.dim
        if dims:
            rng.choice(dims).dim_value = rng.choice((-1, 0, 2, 2**31, 2**62))
    return bytes(model.SerializeToString())


def read_graph(content: bytes, folder: Path) -> None:
    """Look at a graph without running it, load it, and run it."""
    path = folder / "model.onnx"
    path.write_bytes(content)
    assert read_outline(path).num_nodes
    session = OnnxSession(SessionRequest(path, num_threads=1))
    outputs = session.run(np.zeros((2, TINY_SIDE_PX, TINY_SIDE_PX), np.uint8))
    assert len(outputs.logits) == 2


def model_graphs(folder: Path) -> Iterator[bytes]:
    """A graph in float and one with Q/DQ."""
    for is_quantized in (False, True):
        write_tiny_graph(folder / "model.onnx", quantized=is_quantized)
        yield (folder / "model.onnx").read_bytes()


TARGETS = (
    Target("bundles-host", read_on_host, bundles, mutations.in_part(damage_file)),
    Target("bundles-pyz", read_on_device, bundles, mutations.in_part(damage_file)),
    Target("graphs", read_graph, model_graphs, damage_graph),
)
