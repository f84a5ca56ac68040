import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dfkd_edge.machine import doctor
from dfkd_edge.machine.doctor import Check, examine, worst
from tests.fixtures.command import invoke


def named(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


@pytest.fixture
def old_machine(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "cpuinfo").write_text(
        "model name : Old CPU\nflags : fpu sse2 avx2 avx512_bf16\n", encoding="utf-8"
    )
    (tmp_path / "proc" / "meminfo").write_text(
        "MemTotal: 4000000 kB\nMemAvailable: 500000 kB\nSwapFree: 0 kB\n", encoding="utf-8"
    )
    return tmp_path


def test_the_doctor_names_what_a_processor_and_a_memory_lack(old_machine: Path) -> None:
    checks = named(examine(old_machine))
    assert (checks["AVX2"].status, checks["bfloat16"].status) == ("ok", "ok")
    assert checks["VNNI"].status == "note"
    assert "saturate" in checks["VNNI"].advice
    assert checks["memory"].status == "warning"
    assert checks["memory"].value == "0.5 GiB free, 0.0 GiB of swap"
    assert all(check.advice for check in checks.values() if check.status != "ok")


def test_the_doctor_knows_a_jetson_whose_tensorrt_is_out_of_sight(old_machine: Path) -> None:
    (old_machine / "etc").mkdir()
    release = "# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic\n"
    (old_machine / "etc" / "nv_tegra_release").write_text(release, encoding="utf-8")
    lacking = named(examine(old_machine))
    assert "JetPack 6.2" in lacking["jetson"].value
    assert "apt-get install" in lacking["tensorrt"].advice
    (old_machine / "usr" / "lib" / "python3.10" / "dist-packages" / "tensorrt").mkdir(parents=True)
    assert "--system-site-packages" in named(examine(old_machine))["tensorrt"].advice


class Gpu:
    """As `Cuda` sees one."""

    def compute_capability(self) -> int:
        return 90

    def free_bytes(self) -> int:
        return 8 << 30


@pytest.mark.parametrize(
    ("module", "status", "value", "advice"),
    [
        ("__version__ = '10.9'\nclass Builder: ...", "ok", "10.9", "export builds and measures"),
        ("import no_such_library", "note", "No module named 'no_such_library'", "[tensorrt]'"),
        (None, "note", "not installed", "pip install 'dfkd-edge[tensorrt]'"),
    ],
)
def test_the_doctor_says_whether_a_gpu_host_builds_engines(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str | None,
    status: str,
    value: str,
    advice: str,
) -> None:
    monkeypatch.setattr(doctor, "Cuda", Gpu)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # a process of its own tries TensorRT
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)  # another test may have tried it
    if module:
        (tmp_path / "tensorrt.py").write_text(module, encoding="utf-8")
    checks = named(examine(tmp_path))
    assert checks["gpu"].value == "SM 9.0, 8.0 GiB free"
    assert checks["tensorrt"].status == status
    assert value in checks["tensorrt"].value
    assert advice in checks["tensorrt"].advice


def test_two_onnx_runtimes_at_once_are_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "onnx runtimes" not in named(examine(tmp_path))
    package = tmp_path / "onnxruntime_gpu-1.20.0.dist-info"
    package.mkdir()
    text = "Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.20.0\n"
    (package / "METADATA").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)  # another test may have tried it
    after = examine(tmp_path)
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in named(after)["onnx runtimes"].advice
    assert worst(after) == "lacking"
    assert invoke("doctor").exception.exit_code == 4  # type: ignore[union-attr]


def test_the_doctor_speaks_json() -> None:
    document = json.loads(invoke("doctor", "--json").stdout)
    names = {check["name"] for check in document["checks"]}
    assert {"dfkd-edge", "processor", "packages", "memory", "disk"} <= names


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for path in ("dfkd-edge/engines/a.engine", "dfkd-edge/drawings/a.safetensors", "hub/weights"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_bytes(b"x" * 1000)
    return tmp_path


def test_cache_info_measures_our_caches(caches: Path) -> None:
    document = json.loads(invoke("cache", "info", "--json").stdout)
    sizes = {cache["name"]: (cache["bytes"], cache["num_files"]) for cache in document["caches"]}
    assert sizes == {"engines": (1000, 1), "drawings": (1000, 1)}
    most = {cache["name"]: cache["max_bytes"] for cache in document["caches"]}
    assert most["engines"] > 0
    assert most["drawings"] is None  # of earlier versions: shown and cleaned all the same
    assert "unknown" in invoke("cache", "info").stdout


def test_clean_deletes_our_own_caches_and_nothing_else(caches: Path) -> None:
    shown = invoke("cache", "clean", "--dry-run", "--json")
    assert json.loads(shown.stdout)["deleted"] is False
    assert (caches / "dfkd-edge" / "engines" / "a.engine").exists()
    assert invoke("cache", "clean", "engines", "-y").exit_code == 0
    assert [path.name for path in (caches / "dfkd-edge").iterdir()] == ["drawings"]
    (caches / "dfkd-edge" / "elsewhere").symlink_to(caches / "hub")
    assert invoke("cache", "clean", "--yes").exit_code == 0
    assert [path.name for path in (caches / "dfkd-edge").iterdir()] == ["elsewhere"]
    assert (caches / "hub" / "weights").exists()


def test_a_name_of_a_folder_moves_no_cursor(caches: Path) -> None:
    (caches / "dfkd-edge" / "a\x1b[31mred").mkdir()
    (caches / "dfkd-edge" / "a\x1b[31mred" / "file").write_bytes(b"x")
    assert r"a\u001b[31mred" in invoke("cache", "clean", "--dry-run").stderr


def test_clean_keeps_what_was_used_last(caches: Path) -> None:
    folder = caches / "dfkd-edge" / "engines"
    for age, name in enumerate(("new", "middle", "old")):
        for suffix in ("engine", "json"):
            path = folder / f"{name}.{suffix}"
            path.write_bytes(bytes(1 << 19))
            os.utime(path, (1e9 - age, 1e9 - age))
    os.utime(folder / "a.engine", (1, 1))
    shown = invoke("cache", "clean", "engines", "--keep", "2", "--yes", "--json")
    assert json.loads(shown.stdout)["caches"] == {str(folder): (1 << 20) + 1000}
    names = ["middle.engine", "middle.json", "new.engine", "new.json"]
    assert sorted(path.name for path in folder.iterdir()) == names


def test_a_shell_can_complete_verbs() -> None:
    words = {"COMP_WORDS": "dfkd-edge insp", "COMP_CWORD": "1"}
    environment = os.environ | words | {"_DFKD_EDGE_COMPLETE": "complete_bash"}
    program = [Path(sys.executable).with_name("dfkd-edge")]
    done = subprocess.run(program, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["inspect"]
