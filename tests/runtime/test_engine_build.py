"""The engine builder against NVIDIA's own parser and builder (TensorRT-RTX needs no GPU to build),
and its API against the stubs of TensorRT 10.
"""

import ast
import ctypes
import importlib
import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from dfkd_edge.machine.caches import empty_cache, find_caches
from dfkd_edge.runtime import cuda_memory, engine_build, engine_session
from dfkd_edge.runtime.device import TO_INSTALL
from dfkd_edge.runtime.engine_build import (
    EngineKey,
    build_engine,
    cached_engine,
    keep_engine,
    load_timings,
    save_timings,
    workspace_for,
)
from dfkd_edge.runtime.engine_session import open_session
from dfkd_edge.runtime.faults import Fault, LackingFault
from dfkd_edge.runtime.session import SessionRequest

KEY = EngineKey("ab" * 32, "10.3.0", 87, "6.2", "int8 batch=1,1,1")
TO_GET_TENSORRT = f"{engine_session.NOT_INSTALLED}: {TO_INSTALL}"
GONE_BY_10 = {
    *("max_workspace_size", "build_engine", "get_binding_name", "num_bindings"),
    *("get_binding_shape", "get_binding_dtype", "get_binding_index", "get_profile_shape"),
    *("set_binding_shape", "execute_async_v2", "serialize"),
}


@pytest.fixture(scope="module")
def trt() -> Any:
    """TensorRT-RTX, whose builder has TensorRT's API."""
    found = importlib.util.find_spec("tensorrt_rtx_libs")
    if found is None or not found.submodule_search_locations:
        pytest.skip("tensorrt-rtx is not installed")
    folder = Path(next(iter(found.submodule_search_locations)))
    for name in ("libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1"):
        ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
    bindings = importlib.import_module("tensorrt_rtx_bindings")
    return getattr(bindings, "tensorrt_rtx", bindings)


@pytest.mark.parametrize("quantized", [False, True])
def test_an_engine_is_built_without_a_gpu_and_kept(
    trt: Any, tiny_graph: Any, tmp_path: Path, quantized: bool
) -> None:
    path = tmp_path / "model.onnx"
    tiny_graph(path, quantized=quantized)

    def for_ampere(config: Any) -> None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM86, 0)

    request = SessionRequest(path, "int8" if quantized else "fp32")
    plan = build_engine(trt, request, lambda _: None, tmp_path / "timings", for_ampere)
    keep_engine(tmp_path / "cache", KEY, plan)
    assert len(plan) > 10_000
    assert cached_engine(tmp_path / "cache", KEY) == plan


class Kernels:
    """The part of TensorRT's builder config that keeps timings; it knows its own alone."""

    def __init__(self, device: bytes) -> None:
        self.device, self.cache = device, b""

    def create_timing_cache(self, content: bytes) -> bytes | None:
        return content

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        self.cache = cache
        return cache in (b"", self.device)

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: self.device)


def test_timings_are_kept_for_the_next_build_and_those_of_another_device_passed_over(
    tmp_path: Path,
) -> None:
    seen = []
    for device in (b"orin", b"orin", b"thor"):
        config = Kernels(device)
        load_timings(config, tmp_path / "timings")
        save_timings(config, tmp_path / "timings")
        seen.append(config.cache)
    assert seen == [b"", b"orin", b""]
    assert (tmp_path / "timings").read_bytes() == b"thor"


def test_a_missing_dla_and_a_refused_graph_are_one_line_each(trt: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(Fault, match="TensorRT refuses the graph") as caught:
        build_engine(trt, SessionRequest(path, "fp32"), lambda _: None)
    assert "\n" not in str(caught.value)
    request = SessionRequest(path, "int8", use_dla=True)
    with pytest.raises(LackingFault, match="has none"):
        build_engine(trt, request, lambda _: None)
    assert engine_build.flags_text(trt, request).endswith(" dla")
    assert not replace(request, precision="fp32").is_for_dla


def test_layers_go_to_the_dla_and_the_gpu_takes_the_rest() -> None:
    trt, config = mock.MagicMock(), mock.MagicMock()
    request = SessionRequest(Path("model.onnx"), "int8", use_dla=True)
    engine_build._configure(trt, config, request, 1 << 20)
    assert config.default_device_type == trt.DeviceType.DLA
    assert config.DLA_core == 0
    config.set_flag.assert_any_call(trt.BuilderFlag.GPU_FALLBACK)


def test_an_engine_is_found_again_whole_and_only_under_its_own_key(tmp_path: Path) -> None:
    keep_engine(tmp_path, KEY, b"plan")
    assert cached_engine(tmp_path, KEY) == b"plan"
    for field in fields(KEY):
        other: Any = {field.name: 110 if field.name == "sm" else "another"}
        assert cached_engine(tmp_path, replace(KEY, **other)) is None
    (tmp_path / f"{KEY.digest()}.engine").write_bytes(b"pla")
    assert cached_engine(tmp_path, KEY) is None
    note = tmp_path / f"{KEY.digest()}.json"
    assert json.loads(note.read_text(encoding="utf-8"))["sm"] == 87
    note.write_text("[]", encoding="utf-8")
    assert cached_engine(tmp_path, KEY) is None
    with pytest.raises(LackingFault, match="--cache"):  # below a file, where no folder can be
        keep_engine(note / "cache", KEY, b"plan")


def test_our_own_cache_stays_below_its_limit_and_keeps_what_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(engine_build, "MAX_CACHE_BYTES", 3_000)
    ours, theirs = engine_build.default_cache(), tmp_path / "named"
    keys = [replace(KEY, sm=sm) for sm in range(6)]
    for place in (ours, theirs):
        for age, key in enumerate(keys):
            keep_engine(place, key, bytes(500))
            os.utime(place / f"{key.digest()}.engine", (1e9 + age, 1e9 + age))
            os.utime(place / f"{key.digest()}.json", (1e9 + age, 1e9 + age))
            assert cached_engine(place, keys[0])  # which counts as used
    assert cached_engine(ours, keys[1]) is None
    assert cached_engine(ours, keys[5])
    assert sum(path.stat().st_size for path in ours.iterdir()) <= 3_000
    assert all(cached_engine(theirs, key) for key in keys)


def test_workspace_follows_free_memory() -> None:
    assert [workspace_for(n << 30) >> 20 for n in (0, 2, 64)] == [64, 1024, 4096]


def test_an_empty_package_is_no_tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt").mkdir()  # what type stubs leave behind, a package without a module
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    assert str(engine_session.why_no_tensorrt()) == TO_GET_TENSORRT
    sys.modules.pop("tensorrt")
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # as where there is none
    assert str(engine_session.why_no_tensorrt()) == TO_GET_TENSORRT


def test_where_cuda_is_what_lacks_nobody_is_told_to_install_tensorrt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tensorrt.py").write_text("class Builder: ...\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.setattr(cuda_memory, "LIBRARIES", ("libno-such-cudart.so",))
    monkeypatch.setattr(cuda_memory, "IN_PACKAGES", "nothing")
    with pytest.raises(LackingFault, match="no CUDA runtime library") as caught:
        open_session(SessionRequest(tmp_path / "model.onnx", backend="tensorrt"), print)
    sys.modules.pop("tensorrt")
    assert caught.value.hint == cuda_memory.TO_SEE


def test_a_cuda_runtime_that_pip_installed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_memory, "FOLDERS", ())
    if not any(any(Path(place).glob(cuda_memory.IN_PACKAGES)) for place in sys.path):
        pytest.skip("torch is installed without CUDA")
    assert cuda_memory._load()._name.startswith(tuple(filter(None, sys.path)))


def test_every_call_exists_in_tensorrt_10_or_was_removed_before_it() -> None:
    places = (Path(p) / "tensorrt_bindings" / "tensorrt.pyi" for p in sys.path)
    stubs = next(filter(Path.is_file, places), None)
    if stubs is None:
        pytest.skip("tensorrt-stubs is not installed")
    known = set(re.findall(r"[A-Za-z_]\w+", stubs.read_text(encoding="utf-8")))
    owners = {"trt", "builder", "network", "parser", "config", "profile", "engine", "context"}
    for module in (engine_build, engine_session):
        assert module.__file__
        tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                named = node.value.id in owners and not node.attr.startswith("__")
                assert not named or node.attr in known | GONE_BY_10, node.attr


@pytest.mark.parametrize("lay", [Path.touch, lambda path: path.symlink_to(path.name)])
def test_a_cache_that_is_no_folder_is_told_before_minutes_of_building(
    lay: Callable[[Path], None], tmp_path: Path
) -> None:
    lay(tmp_path / "engines")
    with pytest.raises(LackingFault, match="cache of engines is no folder"):
        engine_build.require_own_cache(tmp_path / "engines")


@pytest.mark.parametrize("plant", ["folder", "engine", "note", "link", "other graph"])
def test_an_engine_that_others_may_have_laid_is_never_loaded(tmp_path: Path, plant: str) -> None:
    cache = tmp_path / "engines"
    key, other = (engine_build.EngineKey(x * 64, "10.3", 87, "6.2", "int8") for x in "ab")
    engine_build.require_own_cache(cache)
    engine_build.keep_engine(cache, key, b"plan")
    assert engine_build.cached_engine(cache, key) == b"plan"
    path, note = (cache / f"{key.digest()}{suffix}" for suffix in (".engine", ".json"))
    if plant == "folder":
        cache.chmod(0o777)
        with pytest.raises(
            LackingFault, match=r"cache of engines can be written by others .*: remo"
        ):
            engine_build.require_own_cache(cache)
    elif plant == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    elif plant == "other graph":
        for suffix in (".engine", ".json"):
            (cache / f"{key.digest()}{suffix}").rename(cache / f"{other.digest()}{suffix}")
        key = other
    else:
        (path if plant == "engine" else note).chmod(0o666)
    assert engine_build.cached_engine(cache, key) is None


def test_a_cache_that_links_to_a_disk_of_others_loses_its_engines_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache, disk = engine_build.default_cache(), tmp_path / "disk"
    (disk / "folder").mkdir(parents=True)
    for name in ("photo.jpg", "notes.json", "a.engine", "a.json", "timings-10-sm87.cache"):
        (disk / name).write_bytes(bytes(100))
    disk.chmod(0o775)
    cache.parent.mkdir()
    cache.symlink_to(disk)
    engine_build.require_own_cache(cache)
    assert sorted(path.name for path in disk.iterdir()) == ["folder", "notes.json", "photo.jpg"]
    (disk / "b.engine").write_bytes(bytes(100))
    assert empty_cache(find_caches(["engines"])[0]) == 100
    assert sorted(path.name for path in disk.iterdir()) == ["folder", "notes.json", "photo.jpg"]


def test_our_own_cache_of_an_earlier_version_is_emptied_and_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = engine_build.default_cache()
    cache.mkdir(parents=True)
    (cache / "planted.engine").write_bytes(b"code")
    cache.chmod(0o775)
    engine_build.require_own_cache(cache)
    assert (cache.stat().st_mode & 0o777, list(cache.iterdir())) == (0o700, [])
