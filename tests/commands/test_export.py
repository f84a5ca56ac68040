"""Export as a user calls it, on a small real run."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from dfkd_edge.artifacts import StudentArtifact
from dfkd_edge.bundles.replacement import refuse_other_bundle
from dfkd_edge.config.file import load_config
from dfkd_edge.errors import ArtifactError, ConfigError, GateFailedError, RunDirError, UsageError
from dfkd_edge.pictures import labelled
from dfkd_edge.report import write_report
from dfkd_edge.runtime.bundle_files import CHECK_RESULT, VALIDATION
from dfkd_edge.validation.rungs import FP16_MEASURED
from tests.fixtures.command import call, invoke
from tests.fixtures.files import edit_json, read_json

pytestmark = pytest.mark.usefixtures("few_images")
GATE_OFF = "Gate off for x86-cpu: its limit of 100 points lets every loss pass"
"""What the page says where nothing can fail."""
CLIPPED = ("--set", "export.calibration_method=percentile", "--set")


def test_export_writes_a_bundle_with_a_ladder_of_the_fixed_shape(
    exported: Path, export_document: dict[str, Any]
) -> None:
    bundle, document = exported, export_document
    assert document["classes"] == ["dog", "house", "person"]
    sizes = {rung["name"]: rung["size_bytes"] for rung in document["rungs"]}
    assert list(sizes) == ["teacher", "student", "onnx-fp32", "onnx-int8"]
    assert sizes["onnx-int8"] < 0.4 * sizes["onnx-fp32"]
    for rung in document["rungs"]:
        assert {"domains", "mean_top1", "worst_domain", "size_bytes"} <= set(rung)
        for figures in rung["domains"].values():
            assert {"num_images", "top1", "agreement"} <= set(figures)
    assert document["gate"]["passed"] is True
    assert document["gate"]["max_drop"] == 1
    assert document["rungs"][2]["max_logit_difference"] < 1e-3
    left = {path.name for path in bundle.iterdir()}
    assert {"model.fp32.onnx", "model.int8.onnx", "golden.npz", "check.pyz", "recipe.md"} <= left
    assert "sbom.cdx.json" in read_json(bundle / "manifest.json")["files"]
    assert not [p for p in bundle.parent.iterdir() if p.name.startswith(".export")]
    assert document["report"] == str(bundle.parents[1].resolve() / "report.html")
    page = Path(document["report"]).read_text(encoding="utf-8")
    assert GATE_OFF in page
    assert 'class="badge off"' in page


def test_golden_images_are_held_out_and_balanced(exported: Path) -> None:
    golden = np.load(exported / "golden.npz", allow_pickle=False)
    assert len(golden["images"]) == 32
    digests = set(labelled.image_digests(golden["images"]))
    assert not digests & set(read_json(exported / "calibration.json")["image_digests"])
    assert {"teacher_logits", "student_logits", "int8_logits"} <= set(golden.files)


@pytest.mark.usefixtures("exported")
def test_the_same_export_again_opens_the_bundle(finished_run: Path) -> None:
    again = invoke("export", finished_run, "--target", "x86-cpu", "--max-drop", "1")
    assert again.exit_code == 0
    assert "already exported" in again.stderr
    assert " gate      " in again.stdout


def test_a_finished_bundle_is_signed_without_being_made_again(
    exported_copy: Path, tmp_path: Path
) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    key, public = tmp_path / "maker.key", tmp_path / "maker.pub"
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    spki = PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(private.public_key().public_bytes(Encoding.PEM, spki))
    manifest = (exported_copy / "manifest.json").read_bytes()
    flags = ("--target", "x86-cpu", "--max-drop", "1", "--sign", key)
    done = invoke("export", exported_copy.parents[1], *flags)
    assert done.exit_code == 0, done.exception
    assert "already exported" in done.stderr
    assert f"signed: {exported_copy / 'model.sig'}" in done.stderr.replace("\n", "")
    assert (exported_copy / "manifest.json").read_bytes() == manifest
    verified = invoke("check", exported_copy, "--verify", public, "--dry-run")
    assert verified.exit_code == 0
    assert "made with the key of" in verified.stderr


@pytest.mark.usefixtures("exported")
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_another_bundle_is_refused_at_once_by_what_differs(
    finished_run: Path, monkeypatch: pytest.MonkeyPatch, dry: tuple[str, ...]
) -> None:
    monkeypatch.setattr("dfkd_edge.pipeline.export", None)  # nothing may be run
    flags = ("--max-drop", "0.5", "--calib-size", "550", "--set", "export.percentile=99")
    other = invoke("export", finished_run, "--target", "x86-cpu", *flags, "--no-repair", *dry)
    assert isinstance(other.exception, RunDirError)
    said = str(other.exception)
    for named in (
        *("--max-drop is 1 there, 0.5 here", "--calib-size is 512 there, 550 here"),
        *("export.percentile is 99.99 there, 99 here", "--repair is on there, off here"),
        "--exist-ok replaces it",
    ):
        assert named in said
    assert "--target is" not in said
    assert "student" not in said


def test_a_bundle_of_another_student_proves_nothing_of_the_run_and_says_so(
    exported_copy: Path,
) -> None:
    bundle, run = exported_copy, exported_copy.parents[1]
    config = load_config(run / "config.toml", {"export": {"target": "x86-cpu", "max_drop": 1.0}})
    refuse_other_bundle(bundle, run, config, "")
    assert GATE_OFF in write_report(run).read_text(encoding="utf-8")
    weights = StudentArtifact.load(run / "student").weights
    weights.write_bytes(weights.read_bytes() + b" ")
    page = write_report(run).read_text(encoding="utf-8")
    assert "Proven" not in page
    assert "Bundle x86-cpu holds an earlier student" in page
    with pytest.raises(RunDirError, match="another bundle is there: of another student \\("):
        refuse_other_bundle(bundle, run, config, "")
    edit_json(bundle / "manifest.json", version="0")
    with pytest.raises(RunDirError, match="made by version 0, this is"):
        refuse_other_bundle(bundle, run, config, "")


@pytest.mark.slow
def test_a_failed_gate_is_exit_code_3_and_keeps_the_bundle(
    finished_run: Path, tmp_path: Path, moved: Callable[[Path], Path]
) -> None:
    folder = tmp_path / "harsh"
    harsh = (*CLIPPED, "export.percentile=91", "--max-drop", "0", "--no-repair")
    result = invoke("export", finished_run, "--target", "x86-cpu", *harsh, "-o", folder)
    assert isinstance(result.exception, GateFailedError)
    assert result.exception.exit_code == 3
    assert read_json(folder / "manifest.json")["status"] == "failed"
    assert (folder / "model.int8.onnx").is_file()
    code, output, errors = call("check", moved(folder), "--json")
    assert (code == 3) is not json.loads(output)["gate"]["passed"]
    assert "golden images alone" in errors


def test_a_jetsons_bundle_gives_its_golden_logits_on_this_machine(
    finished_run: Path, tmp_path: Path
) -> None:
    folder, result, board = (tmp_path / name for name in ("bundle", "result.json", "board.toml"))
    board.write_text('base = "orin-nano-8gb-super@jp6.2"\nmin_calibration_images = 8\n')
    flags = ("--target", board, "--calib-size", "16", "--max-drop", "1", "-o", folder)
    exported = invoke("export", finished_run, *flags)
    assert exported.exit_code == 0, exported.exception
    program = [sys.executable, str(folder / "check.pyz"), "--duration", "0", "--precision"]
    done = subprocess.run([*program, "all", "--output", str(result)], capture_output=True)
    found = read_json(result)["models"]
    assert done.returncode == 0, done.stderr
    golden = {name: model["golden"]["passed"] for name, model in found.items()}
    assert golden == {"fp32": True, "int8": True}


def test_an_fp16_bundle_says_at_the_ladder_that_its_graph_is_fp32(
    finished_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    flags = ("--target", "nano", "--max-drop", "1", "-o", folder)
    said = [invoke("export", finished_run, *flags), invoke("check", folder)]
    for result in said:
        assert " ".join(result.stdout.split()).count(f"note: {FP16_MEASURED}") == 1
    assert list(folder.glob("model.*.onnx")) == [folder / "model.fp32.onnx"]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "MiB; see the notes below the ladder" in page
    assert f"<li>{FP16_MEASURED}</li>" in page
    assert FP16_MEASURED.split(";")[0][1:] in (folder / "README.md").read_text(encoding="utf-8")
    for file in (VALIDATION, CHECK_RESULT):
        fp32, fp16 = read_json(folder / file)["rungs"][-2:]
        assert (fp32["name"], fp16["name"]) == ("onnx-fp32", "onnx-fp16")
        sizes = fp32["size_bytes"], fp16["size_bytes"]
        assert sizes == ((folder / "model.fp32.onnx").stat().st_size,) * 2
        assert fp16["latency_ms"] is None


@pytest.mark.slow
def test_a_missed_gate_is_mended_or_reported(finished_run: Path, tmp_path: Path) -> None:
    arguments = ("--target", "jetson", *CLIPPED, "export.percentile=95", "--max-drop", "0.02")
    result = invoke("export", finished_run, *arguments, "-o", tmp_path / "bundle")
    assert "points of agreement on views to choose by, not the gate's" in result.stderr
    manifest = read_json(tmp_path / "bundle" / "manifest.json")
    rescue = manifest["provenance"]["rescue"]
    assert rescue["repair"]["num_quantizable"] > 20
    assert rescue["repair"]["drop_after"] <= rescue["repair"]["drop_before"]
    assert rescue["repair"]["passed"] or rescue["finetune"]["num_steps"] == 4
    assert len(rescue["repair"]["sensitivities"]) == 4
    assert "other views" in rescue["chosen_on"]
    gate = read_json(tmp_path / "bundle" / VALIDATION)["gate"]
    assert (manifest["status"] == "passed") is gate["passed"]


@pytest.mark.parametrize(
    ("arguments", "kind", "fault"),
    [
        (("--batch", "many"), ConfigError, "names no batch sizes"),
        (("--calib-size", "20"), ConfigError, "calibration images are too few"),
        (("--data", "{empty}"), UsageError, "no picture of any class"),
        (("--calib-data", "{empty}"), ConfigError, "no picture in the folder"),
    ],
)
def test_a_wrong_request_is_one_line_and_writes_nothing(
    finished_run: Path, tmp_path: Path, arguments: tuple[str, ...], kind: type, fault: str
) -> None:
    (tmp_path / "empty").mkdir()
    filled = [argument.format(empty=tmp_path / "empty") for argument in arguments]
    result = invoke("export", finished_run, "-o", tmp_path / "bundle", *filled)
    assert isinstance(result.exception, kind), result.exception
    assert fault in str(result.exception)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("--target", "jetsn"), "unknown target 'jetsn': did you mean jetson"),
        (("--target", "nano", "--precision", "int8"), "does not compute in int8"),
        (("--precision", "fp64"), "'fp64'"),
        (("--opset", "3"), "must be 0, or 13 to 25"),
        (("--set", "export.percentil=9"), "did you mean export.percentile?"),
        (("--data", "missing"), "no such folder (--data missing)"),
        (("--calib-data", "missing"), "no such folder (--calib-data missing)"),
        (("--set", "seed=3"), "'seed' is no setting of export"),
        (("-o", "{foreign}"), "holds what is no bundle's: thesis.doc"),
        ((), "no run here"),
    ],
)
def test_what_no_run_can_mend_is_said_before_a_missing_run(
    tmp_path: Path, arguments: tuple[str, ...], fault: str
) -> None:
    (tmp_path / "thesis.doc").touch()
    filled = [argument.format(foreign=tmp_path) for argument in arguments]
    result = invoke("export", tmp_path / "missing", *filled)
    assert isinstance(result.exception, UsageError)
    assert fault in str(result.exception)
    assert "\n" not in str(result.exception)


@pytest.mark.parametrize("settings", ['precision = "fp16"', 'target = "{board}"'])
def test_what_only_the_run_can_tell_is_left_to_the_run(
    finished_run: Path, tmp_path: Path, settings: str
) -> None:
    board = tmp_path / "board.toml"
    board.write_text('base = "x86-cpu"\nmin_calibration_images = 8\n', encoding="utf-8")
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    tables = (run / "config.toml").read_text(encoding="utf-8").partition("[export]")
    exported = f"[export]\n{settings.format(board=board)}\n"
    (run / "config.toml").write_text(tables[0] + exported, encoding="utf-8")
    result = invoke("export", run, "--calib-size", "20", "--dry-run", "--json")
    assert result.exit_code == 0, result.exception
    assert json.loads(result.stdout)["config"]["calibration_size"] == 20


def test_names_of_runtimes_may_stand_in_one_word_and_a_precision_in_capitals(
    finished_run: Path,
) -> None:
    flags = ("--target", "jetson", "--precision", "FP16", "--runtime", "onnxruntime, trtexec")
    result = invoke("export", finished_run, *flags, "--dry-run", "--json")
    assert result.exit_code == 0, result.exception
    config = json.loads(result.stdout)["config"]
    assert (config["precision"], config["runtimes"]) == ("fp16", ["onnxruntime", "trtexec"])


@pytest.mark.parametrize(
    ("file", "content", "fault"),
    [
        ("classes.txt", "dog\nhorse\nperson\n", "classes are not those of the student"),
        ("surrogates/shard-00000.safetensors", "", "missing or changed"),
        ("student/student.json", "{}", "missing or changed"),
    ],
)
def test_a_run_whose_files_do_not_belong_together_is_not_exported(
    file: str, content: str, fault: str, finished_run: Path, tmp_path: Path
) -> None:
    mixed = Path(shutil.copytree(finished_run, tmp_path / "mixed"))
    (mixed / file).write_text(content, encoding="utf-8")
    result = invoke("export", mixed, "--target", "x86-cpu", "-o", tmp_path / "bundle")
    assert isinstance(result.exception, ArtifactError)
    assert fault in str(result.exception)
    assert file in str(result.exception)


def test_a_lost_file_of_a_run_is_told_before_anything_is_loaded(
    finished_run: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    (run / "student" / "student.safetensors").unlink()
    shutil.rmtree(run / "bundles", ignore_errors=True)
    for flags in ((), ("--dry-run",)):
        said = invoke("export", run, "--target", "x86-cpu", *flags).exception
        assert isinstance(said, ArtifactError)
        assert "the run is damaged" in str(said)
        assert "student/student.safetensors" in str(said)
        assert f"dfkd-edge distill --config {run}/config.toml" in str(said)


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_too_few_images_for_int8_are_told_in_the_same_words_with_or_without_a_dry_run(
    finished_run: Path, tmp_path: Path, dry: tuple[str, ...]
) -> None:
    flags = ("--target", "jetson", "--calib-size", "6000", "-o", tmp_path / "bundle")
    said = invoke("export", finished_run, *flags, *dry).exception
    assert isinstance(said, ConfigError)
    assert re.search(r"5\d\d images to learn from, and INT8 for \S+ calibrates on 6000", str(said))
    assert "--precision fp16" in str(said)
    assert not (tmp_path / "bundle").exists()


def test_a_bundle_is_not_put_among_those_of_another_run(finished_run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(finished_run, tmp_path / "other"))
    place = other / "bundles" / "guest"
    for force in ((), ("--exist-ok",)):
        said = invoke("export", finished_run, "--target", "x86-cpu", "-o", place, *force).exception
        assert isinstance(said, RunDirError)
        assert "bundles of another run, other" in str(said)
        assert not place.exists()


def test_dry_run_shows_the_plan_and_what_each_part_takes_and_writes_nothing(
    finished_run: Path,
) -> None:
    folder = finished_run / "bundles" / "second"
    command = ("export", finished_run, "--target", "jetson", "-o", folder, "--dry-run")

    def planned(*flags: str) -> Any:
        said = invoke(*command, "--json", *flags)
        assert said.exit_code == 0, said.exception
        return json.loads(said.stdout)

    document = planned("--batch", "1,4")
    assert document["target"] == "orin-nano-8gb-super@jp6.2"
    assert document["config"]["batch"] == [1, 4]
    assert not folder.exists()
    whole, unrepaired = document["estimate"], planned("--no-repair")["estimate"]
    assert min(whole["seconds"], whole["more_seconds"], whole["repair_seconds"]) > 0
    assert whole["repair_memory_gib"] > whole["memory_gib"] > 1
    assert whole["repair_seconds"] < 10 * whole["seconds"]
    parts = whole["seconds"] + whole["more_seconds"] + whole["repair_seconds"]
    assert whole["most_seconds"] == pytest.approx(parts)
    assert all(stage["seconds"] or stage["disk_bytes"] for stage in whole["stages"])
    assert unrepaired["repair_seconds"] == 0
    assert unrepaired["num_images"] == whole["num_images"]
    assert planned("--precision", "fp16")["estimate"]["repair_seconds"] == 0
    shown = invoke(*command, "--max-drop", "1")
    assert "# time " in shown.stdout
    assert "misses the gate" not in shown.stdout


def test_before_tensorrt_8_5_the_graph_takes_floats_and_all_of_the_bundle_follows(
    finished_run: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "nano"
    flags = ("--target", "nano", "--max-drop", "1", "--output", bundle, "--json")
    result = invoke("export", finished_run, *flags)
    assert result.exit_code == 0, result.exception
    model = onnx.load(bundle / "model.fp32.onnx")
    (value,) = model.graph.input
    assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert model.opset_import[0].version == 13
    contract = read_json(bundle / "preprocess.json")
    assert (contract["input"]["dtype"], contract["input"]["range"]) == ("float32", [0, 255])
    assert "float32 of 0 to 255" in (bundle / "recipe.md").read_text(encoding="utf-8")
    assert np.load(bundle / "golden.npz")["images"].dtype == np.uint8  # as pictures are read
    checked = [sys.executable, bundle / "check.pyz", "--duration", "0", "--precision", "fp32"]
    done = subprocess.run([*map(str, checked)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr  # the golden logits come out of floats, too
    assert invoke("inspect", bundle, "--json").stdout.count("float32 NHWC RGB") == 1
