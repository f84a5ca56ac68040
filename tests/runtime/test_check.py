from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dfkd_edge.artifacts import ModelFile
from dfkd_edge.bundles.bundle import BundleContents, write_bundle
from dfkd_edge.runtime import check, session
from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.runtime.caveats import FP16_IN_ENGINE, why_not_target
from dfkd_edge.runtime.preprocess import test_card as draw_test_card

MakeBundle = Callable[..., Bundle]
RunCheck = Callable[..., tuple[int, str, dict[str, Any]]]


@pytest.fixture
def bundle_of(tmp_path: Path, tiny_contents: BundleContents, tiny_graph: Any) -> MakeBundle:
    """Write a bundle whose FP32 graph differs from the one that made the golden logits."""

    def make(**graph: Any) -> Bundle:
        path = tmp_path / "other.onnx"
        tiny_graph(path, **graph)
        models = {**tiny_contents.models, "fp32": ModelFile(path, "onnx", "fp32", {})}
        return write_bundle(tmp_path / "other", replace(tiny_contents, models=models))

    return make


def edit_manifest(bundle: Bundle, change: Callable[[dict[str, Any]], None]) -> None:
    path = bundle.folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


def test_a_good_bundle_passes(run_check: RunCheck, tiny_bundle: Bundle) -> None:
    code, errors, result = run_check(tiny_bundle.folder, "--precision", "all", "--duration", "0.1")
    assert (code, errors) == (0, "")
    assert result["passed"]
    for precision in ("fp32", "int8"):
        model = result["models"][precision]
        assert model["golden"]["agreement"] == 1.0
        assert model["latency"]["percentile_ms"]["p50"] <= model["latency"]["percentile_ms"]["p99"]


@pytest.mark.parametrize("saturates", [True, False])
def test_int8_in_float_is_no_measure_and_that_is_said(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, saturates: bool
) -> None:
    edit_manifest(tiny_bundle, lambda manifest: manifest.update(int8_full_range=True))
    monkeypatch.setattr(session, "cpu_saturates", lambda: saturates)
    flags = ["--bundle", str(tiny_bundle.folder), "--duration", "0.01", "--warmup", "0", "-q"]
    assert check.main(flags) == 0
    result = json.loads((tiny_bundle.folder / "result.json").read_text(encoding="utf-8"))
    doubts = result["models"]["int8"]["latency"]["doubts"]
    said = "8-bit sums of this CPU saturate, so INT8 was computed in float: check.pyz on the device"
    assert any(doubt.startswith(said) for doubt in doubts) is saturates


@pytest.mark.parametrize(
    ("machine", "advice"),
    [("x86_64", "check.pyz on the device"), ("aarch64", "apt-get install python3-libnvinfer")],
)
def test_an_int8_graph_for_tensorrt_is_timed_by_tensorrt_and_how_to_get_there_is_said(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, machine: str, advice: str
) -> None:
    edit_manifest(tiny_bundle, lambda manifest: manifest.update(backend="tensorrt"))
    monkeypatch.setattr("platform.machine", lambda: machine)
    flags = ["--bundle", str(tiny_bundle.folder), "--duration", "0.01", "--warmup", "0", "-q"]
    assert check.main(flags) == 0
    result = json.loads((tiny_bundle.folder / "result.json").read_text(encoding="utf-8"))
    doubts = result["models"]["int8"]["latency"]["doubts"]
    (doubt,) = (doubt for doubt in doubts if "for TensorRT in float" in doubt)
    assert advice in doubt
    assert ("check.pyz" in doubt) is (machine == "x86_64")


@pytest.mark.parametrize("duration", ["0", "0.01"])
def test_an_fp16_bundle_says_that_its_fp32_graph_was_run(
    fp16_bundle: Bundle, capsys: pytest.CaptureFixture[str], duration: str
) -> None:
    flags = ["--bundle", str(fp16_bundle.folder), "--duration", duration, "--warmup", "0"]
    assert check.main(flags) == 0
    assert capsys.readouterr().out.count(f"note: {FP16_IN_ENGINE}\n") == 1
    result = json.loads((fp16_bundle.folder / "result.json").read_text(encoding="utf-8"))
    assert result["models"]["fp16"]["notes"] == [FP16_IN_ENGINE]
    doubts = result["models"]["fp16"].get("latency", {}).get("doubts", [])
    assert not [doubt for doubt in doubts if "FP16" in doubt]


@pytest.mark.parametrize(
    ("machine", "system", "backend", "said"),
    [
        ("aarch64", "Linux", "onnxruntime", ""),
        ("arm64", "Linux", "onnxruntime", ""),
        ("arm64", "Darwin", "onnxruntime", "aarch64 host with Darwin, not the target"),
        ("x86_64", "Linux", "onnxruntime", "x86_64 host, not the target"),
        ("AMD64", "Windows", "onnxruntime", "x86_64 host, not the target"),
        ("aarch64", "Linux", "tensorrt", "onnxruntime, not the target's tensorrt"),
        ("x86_64", "Linux", "tensorrt", "x86_64 host, not the target"),
    ],
)
def test_a_run_beside_the_target_says_so(
    tiny_bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    machine: str,
    system: str,
    backend: str,
    said: str,
) -> None:
    edit_manifest(tiny_bundle, lambda manifest: manifest.update(backend=backend))
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("platform.system", lambda: system)
    path = tiny_bundle.folder / "result.json"
    assert check.main(["--bundle", str(tiny_bundle.folder), "--duration", "0"]) == 0
    output = capsys.readouterr().out
    assert (f"note: {said}\n" in output) is bool(said)
    beside = f" ({said})" if said else ""
    assert output.splitlines()[-1] == f"passed{beside}, written to {path}"
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["models"]["int8"]["not_target"] == result["not_target"] == said


@pytest.mark.parametrize(("machine", "said"), [("AMD64", ""), ("arm64", "aarch64 host, not the")])
def test_an_x86_target_is_known_in_every_spelling(
    tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, machine: str, said: str
) -> None:
    manifest = replace(tiny_bundle.manifest, machine="x86_64", backend="onnxruntime")
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert why_not_target(manifest, "onnxruntime")[: len(said) or None] == said


def test_json_prints_one_document(tiny_bundle: Bundle) -> None:
    command = [sys.executable, "check.pyz", "--json", "--duration", "0"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tiny_bundle.folder)
    assert json.loads(done.stdout)["passed"]
    assert "verified" in done.stderr


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("model.int8.onnx", lambda p: p.write_bytes(p.read_bytes()[:-9]), " bytes, not "),
        ("golden.npz", lambda p: p.write_bytes(p.read_bytes()[:-9]), " bytes, not "),
        ("classes.txt", lambda p: p.write_text("cat\n"), ": 4 bytes, not 21 ("),
        ("recipe.md", lambda p: p.write_text("run this\n"), ": 9 bytes, not 7 ("),
        ("recipe.md", lambda p: p.write_text("run on\n"), "differs from the manifest: other con"),
        ("preprocess.json", lambda p: p.write_text(p.read_text() + " "), " bytes, not "),
        ("model.int8.onnx", lambda p: p.unlink(), "is missing"),
        ("preprocess.json", lambda p: p.unlink(), "is missing"),
        (
            "model.int8.onnx",
            lambda p: shutil.copyfile(p.parent / "model.fp32.onnx", p),
            "holds the content of model.fp32.onnx",
        ),
    ],
)
def test_a_damaged_file_is_named_in_one_line(
    run_check: RunCheck, tiny_bundle: Bundle, name: str, damage: Callable[[Path], object], said: str
) -> None:
    damage(tiny_bundle.folder / name)
    code, errors, result = run_check(tiny_bundle.folder)
    assert code == 1
    assert errors.count("\n") == 1
    assert name in errors
    assert said in errors
    assert result == {}


@pytest.mark.parametrize(
    "hostile", ["/etc/passwd", "../secret", "a/../../secret", "a\\b", "C:x", "", "./a", "a//b"]
)
def test_a_hostile_path_is_refused(run_check: RunCheck, tiny_bundle: Bundle, hostile: str) -> None:
    def plant(manifest: dict[str, Any]) -> None:
        manifest["files"][hostile] = {"sha256": "0" * 64, "bytes": 1}

    edit_manifest(tiny_bundle, plant)
    code, errors, _ = run_check(tiny_bundle.folder)
    assert code == 1
    assert errors.count("\n") == 1
    assert "outside of the bundle" in errors


def test_a_symbolic_link_is_refused(
    run_check: RunCheck, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    model = tiny_bundle.folder / "model.int8.onnx"
    model.rename(tmp_path / "elsewhere.onnx")
    model.symlink_to(tmp_path / "elsewhere.onnx")
    code, errors, _ = run_check(tiny_bundle.folder)
    assert code == 1
    assert errors.count("\n") == 1
    assert "symbolic link" in errors


@pytest.mark.parametrize(
    ("content", "code"),
    [(None, 2), ("{", 1), ("[]", 1), ("{}", 2), ("[" * 100_000, 1)],
)
def test_a_foreign_folder_is_no_bundle(
    tiny_bundle: Bundle, tmp_path: Path, content: str | None, code: int
) -> None:
    folder = tmp_path / "foreign"
    folder.mkdir()
    if content is not None:
        (folder / "manifest.json").write_text(content)
    command = [sys.executable, str(tiny_bundle.folder / "check.pyz"), "--bundle", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")


def test_every_missing_key_of_the_manifest_gets_a_line(
    run_check: RunCheck, tiny_bundle: Bundle
) -> None:
    for key in ("files", "models", "classes", "precision", "tolerance", "format"):
        kept = (tiny_bundle.folder / "manifest.json").read_text(encoding="utf-8")
        edit_manifest(tiny_bundle, lambda manifest, key=key: manifest.pop(key))  # type: ignore[misc]
        code, errors, _ = run_check(tiny_bundle.folder)
        assert (code, errors.count("\n")) == (1, 1), key
        (tiny_bundle.folder / "manifest.json").write_text(kept, encoding="utf-8")


def test_swapped_channels_are_named(run_check: RunCheck, bundle_of: MakeBundle) -> None:
    code, errors, result = run_check(bundle_of(swaps_channels=True).folder, "--precision", "fp32")
    assert code == 3
    assert "takes BGR where RGB is fed" in errors
    assert result["models"]["fp32"]["golden"]["cause"] == "the model takes BGR where RGB is fed"


@pytest.mark.parametrize(
    ("gain", "said"), [(1e-6, "wrong range, scaled twice"), (float("inf"), "values overflow")]
)
def test_a_wrong_range_is_named(
    run_check: RunCheck, bundle_of: MakeBundle, gain: float, said: str
) -> None:
    code, errors, _ = run_check(bundle_of(gain=gain).folder, "--precision", "fp32")
    assert code == 3
    assert said in errors


def test_a_bundle_that_failed_on_the_host_does_not_pass(
    run_check: RunCheck, tmp_path: Path, tiny_contents: BundleContents
) -> None:
    bundle = write_bundle(tmp_path / "failed", replace(tiny_contents, status="failed"))
    code, errors, result = run_check(bundle.folder)
    assert code == 3
    assert "marked this bundle failed" in errors
    assert result["models"]["int8"]["golden"]["passed"]


def test_a_frame_of_another_pipeline_is_judged(
    run_check: RunCheck, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    card = draw_test_card(16)
    blurless = np.asarray(
        Image.fromarray(card).resize((16, 16), Image.Resampling.NEAREST), dtype=np.uint8
    )
    np.save(tmp_path / "frame.npy", blurless[..., ::-1])
    code, errors, _ = run_check(tiny_bundle.folder, "--frame", str(tmp_path / "frame.npy"))
    assert code == 3
    assert "channels are BGR, not RGB; resized with nearest neighbour" in errors


def test_a_frame_that_is_no_array_is_refused(
    run_check: RunCheck, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "frame.npy").write_bytes(b"\x93NUMPY no")
    code, errors, result = run_check(tiny_bundle.folder, "--frame", str(tmp_path / "frame.npy"))
    assert (code, errors.count("\n")) == (2, 1)
    assert result["models"]["int8"]["golden"]["passed"]


def test_one_fault_is_counted_as_one(tmp_path: Path, tiny_contents: BundleContents) -> None:
    bundle = write_bundle(tmp_path / "failed", replace(tiny_contents, status="failed"))
    command = [sys.executable, "check.pyz", "--duration", "0"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=bundle.folder)
    last = done.stdout.splitlines()[-1]
    assert last.startswith("not passed: 1 fault (")
    assert last.endswith(f", written to {bundle.folder / 'result.json'}")


def test_usage_faults_leave_with_2(run_check: RunCheck, tiny_bundle: Bundle) -> None:
    for arguments in (["--percentile", "101"], ["--backend", "tpu"], ["--nonsense"]):
        code, errors, _ = run_check(tiny_bundle.folder, *arguments)
        assert (code, errors.count("\n")) == (2, 1)
        assert "(check.pyz): --help lists the options" in errors
    code, errors, _ = run_check(tiny_bundle.folder, "--precision", "fp16")
    assert code == 2
    assert "it holds fp32, int8" in errors


def test_the_units_of_times_are_told_where_they_are_asked_and_where_they_are_used(
    tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        check.main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "--warmup MS milliseconds before timing [200]" in told
    assert "--duration S seconds of timing; 0: none [3]" in told
    times = ["--warmup", "2", "--duration", "0.01"]
    assert check.main(["--bundle", str(tiny_bundle.folder), *times]) == 0
    assert "\ntiming int8 for 0.01 s after 2 ms of warm-up\n" in capsys.readouterr().out


def test_tensorrt_that_is_not_there_leaves_with_4(run_check: RunCheck, tiny_bundle: Bundle) -> None:
    code, errors, result = run_check(tiny_bundle.folder, "--backend", "tensorrt")
    assert (code, errors.count("\n")) == (4, 1)
    assert result["models"] == {}


@pytest.mark.parametrize(
    ("lack", "message"),
    [
        ("sys.version_info = (3, 6, 9, 'final', 0)", "needs Python 3.8 or newer, this is 3.6"),
        ("sys.modules['numpy'] = None", "apt-get install python3-numpy"),
    ],
)
def test_a_python_that_will_not_do_gets_a_line_and_no_traceback(
    tiny_bundle: Bundle, lack: str, message: str
) -> None:
    archive = str(tiny_bundle.folder / "check.pyz")
    code = f"import sys, runpy; {lack}; runpy.run_path({archive!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 4
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
