"""Every `except` that narrows a library's call catches all that the library raises on damage.

The product is walked for `try` blocks; what they call is tried here on damaged files. A call of a
library that is new in such a block fails until it is tried too.
"""

import ast
import builtins
import contextlib
import csv
import dataclasses
import functools
import json
import logging
import random
import re
import struct
import tomllib
import warnings
import zipfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import google.protobuf.message  # type: ignore[import-untyped]
import numpy as np
import onnx
import open_clip
import pydantic
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from diffusers import VQModel
from PIL import Image

from dfkd_edge.config.file import load_config, to_toml
from dfkd_edge.config.settings import PipelineConfig
from dfkd_edge.errors import DfkdEdgeError
from dfkd_edge.machine.process import muted
from dfkd_edge.runtime.faults import Fault
from tests.conftest import write_tiny_graph
from tests.damaged import mutations
from tests.damaged.bundles import damage_graph
from tests.damaged.networks import whole_files
from tests.fixtures.picture_corpus import write_corpus

ROOT = Path(__file__).parents[1]
LIBRARIES = frozenset(
    {
        *("safetensors", "torch", "timm", "open_clip", "diffusers", "onnx", "onnxruntime", "PIL"),
        *("numpy", "pyarrow", "pydantic", "huggingface_hub", "google", "transformers"),
        *("tomllib", "json", "yaml", "zipfile", "zlib", "struct", "csv", "html", "pickle"),
    }
)
OWN = (DfkdEdgeError, Fault, KeyboardInterrupt)
BEHIND = {"dfkd_edge/runtime/pictures.py:open_upright": {"PIL.Image.open"}}
"""Blocks that reach a library through another function, or a name that is found at run time."""
INSTALLED = {
    *("dfkd_edge/drawings/memory.py:read_sheets", "dfkd_edge/drawings/memory.py:drawings"),
    "dfkd_edge/synthesis/decoder.py:load_decoder",
}
"""Blocks that read files of this package, which nobody hands over."""
NOT_READERS = (
    *("torch.distributed.", "torch.zeros", "torch.device", "torch.no_grad", "torch.from_numpy"),
    *("torch.Generator", "torch.inference_mode"),
    *("numpy.argsort", "numpy.frombuffer", "json.dumps", "json.loads.", "onnx.defs."),
    *("pydantic.TypeAdapter", "diffusers.utils.logging", "diffusers.VQModel"),
    *("huggingface_hub.try_to_load_from_cache", "yaml.safe_load", "google.protobuf.text_format."),
)
"""Calls that are given no file and no text of others: names, values that were read before them,
configurations that we wrote a moment ago. Of VQModel the sizes follow from tensors, which the
damaged networks try."""


class Site(NamedTuple):
    """A `try` whose clauses name what they catch."""

    where: str  # File and function
    calls: frozenset[str]  # Of libraries, by their full names, in its body
    caught: tuple[type[BaseException], ...]


@functools.cache
def sites() -> tuple[Site, ...]:
    """Walk the product; a clause for `Exception` narrows nothing, nor does one for our own."""
    files = [*(ROOT / "dfkd_edge").rglob("*.py"), *(ROOT / "exporters").rglob("*.py")]
    found = (site for path in sorted(files) for site in _sites_of(path))
    return tuple(
        site
        for site in found
        if site.where not in INSTALLED
        and not {Exception, BaseException} & set(site.caught)
        and not all(issubclass(kind, (*OWN, ImportError)) for kind in site.caught)
    )


def _sites_of(path: Path) -> Iterator[Site]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names, where = _imported(tree), path.relative_to(ROOT).as_posix()
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    # the inner of two functions comes later
    owners = {
        node: function.name
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.Try)
    }
    for node, name in owners.items():
        if node.handlers:
            place = f"{where}:{name}"
            calls = {_full_name(call.func, names) for s in node.body for call in _calls(s)}
            calls = {call for call in calls if call.partition(".")[0] in LIBRARIES}
            caught = tuple(k for h in node.handlers for k in _kinds(h.type, where, names))
            yield Site(place, frozenset(calls | BEHIND.get(place, set())), caught)


def _imported(tree: ast.AST) -> dict[str, str]:
    """Map the names that a file imports, lazily or not, to their full names."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {a.asname: a.name for a in node.names if a.asname}
            tops = (a.name.partition(".")[0] for a in node.names if not a.asname)
            names |= {top: top for top in tops}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return names


def _calls(statement: ast.stmt) -> Iterator[ast.Call]:
    return (node for node in ast.walk(statement) if isinstance(node, ast.Call))


def _full_name(function: ast.expr, names: dict[str, str]) -> str:
    plain = re.sub(r"\(.*\)", "", ast.unparse(function))  # of a call's own method: a().b
    first, dot, rest = plain.partition(".")
    return names[first] + dot + rest if first in names else ""


def _kinds(
    clause: ast.expr | None, where: str, names: dict[str, str]
) -> tuple[type[BaseException], ...]:
    """Evaluate what a clause names, in its module."""
    if clause is None:
        return (BaseException,)
    module = where.removesuffix(".py").replace("/", ".")
    full = module if module.startswith("dfkd_edge") else f"dfkd_edge.{module}"
    of_module = {} if full.endswith("__main__") else vars(import_module(full))  # which would run
    known = {**vars(builtins), **of_module, "image_module": Image}
    for name in {node.id for node in ast.walk(clause) if isinstance(node, ast.Name)} - set(known):
        home, _, last = names[name].rpartition(".")  # imported where it is used
        known[name] = getattr(import_module(home), last) if home else import_module(last)
    found: Any = eval(ast.unparse(clause), known)
    return found if isinstance(found, tuple) else (found,)


class Probe(NamedTuple):
    """How a call is tried."""

    call: Callable[[Path], object]  # Reads a file of damaged content
    whole: Callable[[Path], Iterator[bytes]]  # Content that it takes, made in an empty folder
    damage: mutations.Damage  # Keeps its form


NUM_INPUTS = 60  # Of each call, beside those that no seed finds
EDGES = (
    b"",
    b"\0",
    b"\xff\xfe",
    b"[" * 5_000,
    b'"' * 9,
    b"a" * 200_000,
    b"9" * 5_000,
    b"{}",
    b"[]",
)
"""Empty, no text, nested without end, a cell that is too long, a number that is too long."""


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="surrogateescape")


def _documents(folder: Path) -> Iterator[bytes]:
    yield b'{"key": "a", "images": 3, "names": ["dog", 1.5, null], "shape": [1, [2]]}'


def _tables(folder: Path) -> Iterator[bytes]:
    yield b'id,name\n1,"a ""cat"""\n2,dog\n'


def _tensors(folder: Path) -> Iterator[bytes]:
    yield safetensors.numpy.save({"a": np.eye(3, dtype=np.float32)}, {"step": "3"})
    yield safetensors.numpy.save({"a": np.zeros((2, 3), np.uint8), "b": np.zeros(1, np.bool_)})


def _open_safe(path: Path) -> object:
    with safetensors.safe_open(path, framework="numpy") as file:
        return dict(file.metadata() or {})


def _checkpoints(folder: Path) -> Iterator[bytes]:
    torch.save({"state_dict": {"a": torch.ones(2, 3)}, "epoch": 3}, folder / "a.ckpt")
    torch.save({"a": torch.ones(2)}, folder / "b.ckpt", _use_new_zipfile_serialization=False)
    yield from (path.read_bytes() for path in sorted(folder.iterdir()))


def _arrays(folder: Path) -> Iterator[bytes]:
    np.savez_compressed(folder / "a.npz", images=np.zeros((2, 3), np.uint8), b=np.ones(2))
    np.save(folder / "b.npy", np.ones((2, 2), np.float32))
    yield from (path.read_bytes() for path in sorted(folder.iterdir()))


def _load_arrays(path: Path) -> object:
    with path.open("rb") as stream:
        loaded = np.load(stream, allow_pickle=False)
        return [loaded[name] for name in loaded.files] if hasattr(loaded, "files") else loaded


def _unpack(path: Path) -> object:
    with zipfile.ZipFile(path) as archive:
        return [archive.read(info) for info in archive.infolist()]


def _graphs(folder: Path) -> Iterator[bytes]:
    write_tiny_graph(folder / "a.onnx", quantized=True)
    yield (folder / "a.onnx").read_bytes()


def _check_graph(path: Path) -> object:
    model = onnx.ModelProto()
    with contextlib.suppress(google.protobuf.message.DecodeError):  # a graph of ours is one
        model.ParseFromString(path.read_bytes())
    onnx.checker.check_model(model)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def _pictures(folder: Path) -> Iterator[bytes]:
    write_corpus(folder)
    yield from (path.read_bytes() for path in sorted(folder.iterdir())[::8])


def _open_picture(path: Path) -> object:
    with Image.open(path) as picture:
        return picture.convert("RGB")


def _pipeline_index(folder: Path) -> Iterator[bytes]:
    yield b'{"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DModel"]}'


def _open_pipeline(path: Path) -> object:
    from diffusers import AutoPipelineForText2Image

    path.replace(path.with_name("model_index.json"))
    options = {"use_safetensors": True, "low_cpu_mem_usage": False, "local_files_only": True}
    return AutoPipelineForText2Image.from_pretrained(path.parent, **options)


def _towers(folder: Path) -> Iterator[bytes]:
    yield whole_files()["open_clip_config.json"]


def _create_tower(path: Path) -> object:
    path.replace(path.with_name("open_clip_config.json"))
    with muted(logging.CRITICAL):
        open_clip.create_model(f"local-dir:{path.parent}", load_weights=False, device="meta")
        return open_clip.get_tokenizer(f"local-dir:{path.parent}")


def _autoencoders(folder: Path) -> Iterator[bytes]:
    yield whole_files()["config.json"]


def _create_autoencoder(path: Path) -> object:
    path.replace(path.with_name("config.json"))
    return VQModel.from_pretrained(path.parent, use_safetensors=True, low_cpu_mem_usage=False)


def _settings(folder: Path) -> Iterator[bytes]:
    yield to_toml(load_config(None)).encode()


def _configurations(folder: Path) -> Iterator[bytes]:
    yield json.dumps(dataclasses.asdict(PipelineConfig())).encode()


PROBES = {
    "json.loads": Probe(lambda path: json.loads(_text(path)), _documents, mutations.damage_json),
    "tomllib.loads": Probe(
        lambda path: tomllib.loads(_text(path)), _settings, mutations.damage_toml
    ),
    "csv.reader": Probe(
        lambda path: list(csv.reader(_text(path).split("\n"))), _tables, mutations.flip
    ),
    "safetensors.safe_open": Probe(_open_safe, _tensors, mutations.damage_tensors),
    "safetensors.numpy.load_file": Probe(
        safetensors.numpy.load_file, _tensors, mutations.damage_tensors
    ),
    "safetensors.torch.load_file": Probe(
        safetensors.torch.load_file, _tensors, mutations.damage_tensors
    ),
    "torch.load": Probe(
        lambda path: torch.load(path, map_location="cpu", weights_only=True),
        _checkpoints,
        mutations.damage_archive,
    ),
    "numpy.load": Probe(_load_arrays, _arrays, mutations.damage_archive),
    "zipfile.ZipFile": Probe(_unpack, _arrays, mutations.damage_archive),
    "onnx.load": Probe(
        lambda path: onnx.load(path, load_external_data=False), _graphs, damage_graph
    ),
    "onnx.checker.check_model": Probe(_check_graph, _graphs, damage_graph),
    "open_clip.create_model": Probe(_create_tower, _towers, mutations.damage_json),
    "open_clip.get_tokenizer": Probe(_create_tower, _towers, mutations.damage_json),
    "diffusers.VQModel.from_pretrained": Probe(
        _create_autoencoder, _autoencoders, mutations.damage_json
    ),
    "diffusers.AutoPipelineForText2Image.from_pretrained": Probe(
        _open_pipeline, _pipeline_index, mutations.damage_json
    ),
    "pydantic.TypeAdapter.validate_json": Probe(
        lambda path: pydantic.TypeAdapter(PipelineConfig).validate_json(
            path.read_bytes(), strict=True
        ),
        _configurations,
        mutations.damage_json,
    ),
    "struct.unpack_from": Probe(
        lambda path: struct.unpack_from("<HHLH", path.read_bytes(), 3), _arrays, mutations.flip
    ),
    "PIL.Image.open": Probe(_open_picture, _pictures, mutations.damage_png),
}


def raised_by(probe: Probe, folder: Path) -> dict[type[BaseException], str]:
    """Try a call on damaged files; map what it raises to the words of one case."""
    (folder / "whole").mkdir()
    whole, rng = list(probe.whole(folder / "whole")), random.Random(0)
    raised: dict[type[BaseException], str] = {}
    for number in range(NUM_INPUTS + len(EDGES)):
        damage = (probe.damage, mutations.flip)[number % 2]
        (folder / "a").write_bytes(
            EDGES[number] if number < len(EDGES) else damage(rng.choice(whole), rng)
        )
        try:
            with warnings.catch_warnings(action="ignore"):
                probe.call(folder / "a")
        except OWN:
            continue
        except Exception as error:
            raised[type(error)] = str(error)
    return raised


SECONDS = ("open_clip.", "diffusers.Auto")
"""Calls that take long: they build networks, or look for them."""


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(call, marks=[pytest.mark.slow] * call.startswith(SECONDS))
        for call in sorted(PROBES)
    ],
)
def test_every_clause_catches_what_the_call_raises_on_damaged_files(
    call: str, tmp_path: Path
) -> None:
    raised = raised_by(PROBES[call], tmp_path)
    assert raised  # else nothing was tried
    narrow = [site for site in sites() if call in site.calls]
    assert narrow  # else the probe is of no use any more
    for site in narrow:
        missed = {kind: said for kind, said in raised.items() if not issubclass(kind, site.caught)}
        assert not missed, site.where


def test_every_call_of_a_library_below_a_narrow_clause_is_tried() -> None:
    found = {call: site.where for site in sites() for call in site.calls}
    assert len(found) > 10
    untried = {c: w for c, w in found.items() if c not in PROBES and not c.startswith(NOT_READERS)}
    assert not untried
