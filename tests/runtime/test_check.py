import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dfkd_edge.artifacts import ModelFile
from dfkd_edge.bundles.bundle import BundleContents, write_bundle
from dfkd_edge.results.device import read_result
from dfkd_edge.runtime import check, session
from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.runtime.caveats import FP16_IN_ENGINE
from tests.damaged.flips import Flipped
from tests.fixtures.files import edit_json, read_json
from tests.runtime.conftest import RunCheck

SHORT = ("--duration", "0.01", "--warmup", "0")


def test_a_good_bundle_passes_and_the_host_reads_the_result(
    run_check: RunCheck, tiny_bundle: Bundle
) -> None:
    code, errors, result = run_check(tiny_bundle.folder, "--precision", "all", "--duration", "0.1")
    assert (code, errors, result["passed"]) == (0, "", True)
    found = read_result(tiny_bundle.folder / "result.json")
    assert found.bundle_sha256 == tiny_bundle.sha256
    assert list(found.models) == list(result["models"]) == ["fp32", "int8"]
    for name, model in found.models.items():
        assert result["models"][name]["golden"]["agreement"] == 1.0
        assert model.golden.passed
        assert 0 < (model.p50_ms or 0) <= model.latency.percentile_ms["p99"]
        assert model.latency.throughput_per_s
        assert model.backend == "onnxruntime"
    assert found.name != "device"
    assert found.time


@pytest.mark.parametrize("saturates", [True, False])
def test_int8_in_float_is_no_measure_and_that_is_said(
    run_check: RunCheck, tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch, saturates: bool
) -> None:
    edit_json(tiny_bundle.folder / "manifest.json", int8_full_range=True)
    monkeypatch.setattr(session, "cpu_saturates", lambda: saturates)
    _, _, result = run_check(tiny_bundle.folder, *SHORT)
    model = result["models"]["int8"]
    assert model["settings"]["int8_in_float"] is saturates
    assert any("8-bit sums" in doubt for doubt in model["latency"]["doubts"]) is saturates


def test_an_fp16_bundle_says_that_its_fp32_graph_was_run(
    run_check: RunCheck, fp16_bundle: Bundle
) -> None:
    _, said, result = run_check(fp16_bundle.folder, *SHORT, "--json")
    assert "fp32 graph of the fp16 bundle on onnxruntime" in said
    model = result["models"]["fp16"]
    assert model["notes"] == [FP16_IN_ENGINE]
    assert not any("FP16" in doubt for doubt in model["latency"]["doubts"])


@pytest.mark.parametrize(
    ("machine", "system", "target", "said"),
    [
        ("aarch64", "Linux", "aarch64 onnxruntime", ""),
        ("arm64", "Linux", "aarch64 onnxruntime", ""),
        ("arm64", "Darwin", "aarch64 onnxruntime", "aarch64 host with Darwin, not the target"),
        ("x86_64", "Linux", "aarch64 onnxruntime", "x86_64 host, not the target"),
        ("AMD64", "Windows", "aarch64 onnxruntime", "x86_64 host, not the target"),
        ("aarch64", "Linux", "aarch64 tensorrt", "onnxruntime, not the target's tensorrt"),
        ("x86_64", "Linux", "aarch64 tensorrt", "x86_64 host, not the target"),
        ("AMD64", "Windows", "x86_64 onnxruntime", ""),
        ("arm64", "Linux", "x86_64 onnxruntime", "aarch64 host, not the target"),
    ],
)
def test_a_run_beside_the_target_says_so_whatever_the_spelling(
    tiny_bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    machine: str,
    system: str,
    target: str,
    said: str,
) -> None:
    wanted = dict(zip(("machine", "backend"), target.split(), strict=True))
    edit_json(tiny_bundle.folder / "manifest.json", **wanted)
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("platform.system", lambda: system)
    path = tiny_bundle.folder / "result.json"
    assert check.main(["--bundle", str(tiny_bundle.folder), "--duration", "0"]) == 0
    output = capsys.readouterr().out
    assert (f"note: {said}\n" in output) is bool(said)
    beside = f" ({said})" if said else ""
    assert output.splitlines()[-1] == f"passed{beside}, written to {path}"
    result = read_json(path)
    assert result["models"]["int8"]["not_target"] == result["not_target"] == said


def swap(path: Path) -> None:
    shutil.copyfile(path.with_name("model.fp32.onnx"), path)


def link_outside(path: Path) -> None:
    path.symlink_to(path.rename(path.parents[1] / "elsewhere.onnx"))


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1"])
def test_a_time_that_is_none_is_refused_before_any_work(
    run_check: RunCheck, tiny_bundle: Bundle, seconds: str
) -> None:
    code, errors, result = run_check(tiny_bundle.folder, "--duration", seconds)
    assert (code, result) == (2, {})
    assert "no time from nothing to an hour (--duration)" in errors


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("golden.npz", lambda p: p.write_bytes(p.read_bytes()[:-9]), " bytes, not "),
        ("classes.txt", lambda p: p.write_text("cat\n"), ": 4 bytes, not 21 ("),
        ("recipe.md", lambda p: p.write_text("run on\n"), "differs from the manifest: other con"),
        ("model.int8.onnx", lambda p: p.unlink(), "is missing"),
        ("preprocess.json", lambda p: p.unlink(), "is missing"),
        ("model.int8.onnx", swap, "holds the content of model.fp32.onnx"),
        ("model.int8.onnx", link_outside, "is a symbolic link"),
    ],
)
def test_a_damaged_file_is_named_in_one_line(
    run_check: RunCheck, tiny_bundle: Bundle, name: str, damage: Callable[[Path], object], said: str
) -> None:
    damage(tiny_bundle.folder / name)
    code, errors, result = run_check(tiny_bundle.folder)
    assert (code, errors.count("\n"), result) == (1, 1, {})
    assert name in errors
    assert said in errors


@pytest.mark.parametrize(
    "hostile", ["/etc/passwd", "../secret", "a/../../secret", "a\\b", "C:x", "", "./a", "a//b"]
)
def test_a_hostile_path_is_refused(run_check: RunCheck, tiny_bundle: Bundle, hostile: str) -> None:
    path = tiny_bundle.folder / "manifest.json"
    planted = {hostile: {"sha256": "0" * 64, "bytes": 1}}
    edit_json(path, files=read_json(path)["files"] | planted)
    code, errors, _ = run_check(tiny_bundle.folder)
    assert (code, errors.count("\n")) == (1, 1)
    assert "outside of the bundle" in errors


@pytest.mark.parametrize(
    ("content", "code"),
    [(None, 2), ("{", 1), ("[]", 1), ("{}", 2), ("[" * 100_000, 1)],
)
def test_a_foreign_folder_is_no_bundle(
    run_check: RunCheck, tmp_path: Path, content: str | None, code: int
) -> None:
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    found, errors, _ = run_check(tmp_path)
    assert (found, errors.count("\n")) == (code, 1)
    assert errors.startswith("error: ")


@pytest.mark.parametrize("wrong", ["missing", None, 7, "text", [], {}, {"x": 1}])
def test_a_manifest_is_checked_key_by_key(
    run_check: RunCheck, tiny_bundle: Bundle, wrong: object
) -> None:
    path = tiny_bundle.folder / "manifest.json"
    whole = read_json(path)
    for key in whole.keys() - {"marker", "confidence"}:
        other = {**whole, key: wrong}
        if wrong == "missing":
            del other[key]
        if type(wrong) is not type(whole[key]) or key in ("files", "models"):
            path.write_text(json.dumps(other), encoding="utf-8")
            code, errors, _ = run_check(tiny_bundle.folder)
            assert (code, errors.count("\n")) == (1, 1), key


@pytest.mark.parametrize(
    ("graph", "cause"),
    [
        ({"swaps_channels": True}, "the model takes BGR where RGB is fed"),
        ({"gain": 1e-6}, "wrong range, scaled twice"),
        ({"gain": float("inf")}, "values overflow"),
    ],
)
def test_why_the_golden_logits_are_not_met_is_named(
    run_check: RunCheck,
    tiny_contents: BundleContents,
    tiny_graph: Any,
    tmp_path: Path,
    graph: dict[str, Any],
    cause: str,
) -> None:
    tiny_graph(tmp_path / "other.onnx", **graph)
    other = ModelFile(tmp_path / "other.onnx", "onnx", "fp32", {})
    contents = replace(tiny_contents, models={**tiny_contents.models, "fp32": other})
    bundle = write_bundle(tmp_path / "other", contents)
    code, errors, result = run_check(bundle.folder, "--precision", "fp32")
    assert code == 3
    assert cause in errors
    assert cause in result["models"]["fp32"]["golden"]["cause"]


def test_a_bundle_that_failed_on_the_host_does_not_pass(
    tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_json(tiny_bundle.folder / "manifest.json", status="failed")
    assert check.main(["--bundle", str(tiny_bundle.folder), "--duration", "0"]) == 3
    out, err = capsys.readouterr()
    assert "marked this bundle failed" in err
    assert out.splitlines()[-1].startswith("not passed: 1 fault (")
    result = read_json(tiny_bundle.folder / "result.json")
    assert result["models"]["int8"]["golden"]["passed"]


@pytest.mark.parametrize(
    ("arguments", "code", "hint"),
    [
        ("--percentile 101", 2, "(check.pyz): --help lists the options"),
        ("--backend tpu", 2, "(check.pyz): --help lists the options"),
        ("--nonsense", 2, "(check.pyz): --help lists the options"),
        ("--precision fp16", 2, "it holds fp32, int8"),
        ("--backend tensorrt", 4, "TensorRT is not usable here"),
        ("--output {bundle}/recipe.md/result.json", 4, "name a file with --output"),
    ],
)
def test_what_cannot_be_met_is_one_line_with_the_next_step(
    run_check: RunCheck, tiny_bundle: Bundle, arguments: str, code: int, hint: str
) -> None:
    found, errors, result = run_check(
        tiny_bundle.folder, *arguments.format(bundle=tiny_bundle.folder).split()
    )
    assert found == code
    assert errors.count("\n") == 1
    assert hint in errors
    assert not result.get("models")


@pytest.mark.parametrize(
    ("code", "lack"),
    [(4, ("--backend", "tensorrt")), (2, ("--precision", "fp16", "--quiet"))],
)
def test_a_run_without_a_model_leaves_an_earlier_result_alone(
    run_check: RunCheck, tiny_bundle: Bundle, tmp_path: Path, code: int, lack: tuple[str, ...]
) -> None:
    _, _, good = run_check(tiny_bundle.folder)
    found, errors, result = run_check(tiny_bundle.folder, *lack)
    assert (found, result) == (code, good)
    kept = f"the earlier result stays as it is ({tiny_bundle.folder / 'result.json'})"
    assert errors.splitlines()[1:] == [
        f"no model was run, so {kept}: name another file with --output"
    ]
    other = tmp_path / "other.json"
    other.write_text(json.dumps(good), encoding="utf-8")  # named by hand: it is for this run
    run_check(tiny_bundle.folder, *lack, "--output", str(other))
    assert read_json(other)["models"] == {}


def test_a_result_without_a_model_or_of_another_bundle_is_replaced(
    run_check: RunCheck, tiny_bundle: Bundle
) -> None:
    run_check(tiny_bundle.folder)
    edit_json(tiny_bundle.folder / "result.json", bundle={"manifest_sha256": "0" * 64})
    _, _, first = run_check(tiny_bundle.folder, "--precision", "fp16")
    assert first["models"] == {}
    _, _, second = run_check(tiny_bundle.folder, "--backend", "tensorrt")
    assert second["faults"] != first["faults"]


def test_times_are_told_with_their_units_and_json_leaves_all_else_to_standard_error(
    tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        check.main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "--warmup MS milliseconds before timing [200]" in told
    assert "--duration S seconds of timing; 0: none [3]" in told
    times = ["--warmup", "2", "--duration", "0.01"]
    assert check.main(["--bundle", str(tiny_bundle.folder), *times, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == read_json(tiny_bundle.folder / "result.json")
    assert "verified\n" in err
    assert "\ntiming int8 for 0.01 s after 2 ms of warm-up\n" in err


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


def test_a_flipped_byte_of_its_own_gets_a_line_and_no_traceback(tiny_bundle: Bundle) -> None:
    archive = tiny_bundle.folder / "check.pyz"
    with zipfile.ZipFile(archive) as packed:
        place = packed.getinfo("dfkd_edge/runtime/check.py").header_offset + 200
    with Flipped(tiny_bundle.folder, archive.name, place, 1):
        done = subprocess.run([sys.executable, archive], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"file is damaged ({archive})" in done.stderr
