"""Export and check as a user calls them, on a small real run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from dfkd_edge.artifacts import StudentArtifact, load_tensors
from dfkd_edge.class_names import ClassNames
from dfkd_edge.cli import app
from dfkd_edge.config import PipelineConfig, SynthesisConfig
from dfkd_edge.config_file import to_toml
from dfkd_edge.deployment import precision_repair
from dfkd_edge.distillation import qat
from dfkd_edge.errors import ArtifactError, ConfigError, GateFailedError, RunDirError, UsageError
from dfkd_edge.report import write_report
from dfkd_edge.run_dir import atomic_write, open_run
from dfkd_edge.students import MINI, build_student, student_tensors
from dfkd_edge.synthesis.surrogate_store import (
    read_surrogates,
    shard_path,
    write_shard,
    write_summary,
)
from dfkd_edge.teacher import Teacher
from dfkd_edge.validation import evaluation_images

FEW_PICTURES = "Gate passed for x86-cpu, too few pictures to tell"
"""What the page says of the tiny run's few held-out images."""
SIDE_PX, SHARD, NUM_SHARDS = 64, 128, 5
CLIPPED = ("--set", "export.calibration_method=percentile", "--set")
HARSH = (*CLIPPED, "export.percentile=91", "--max-drop", "0", "--no-repair")


@pytest.fixture(scope="module", autouse=True)
def _few_images() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation_images, "WANTED_IMAGES", 30)
        patch.setattr(qat, "NUM_STEPS", 4)
        patch.setattr(qat, "BATCH_SIZE", 8)
        patch.setattr(precision_repair, "MAX_RANKED", 4)
        yield


def _invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def _write_surrogates(folder: Path) -> list[Path]:
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


@pytest.fixture(scope="module")
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
        files, share = _write_surrogates(folder), config.synthesis.heldout_share
        made = read_surrogates(folder, NUM_SHARDS, classes.names, share, "key")
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


@pytest.fixture(scope="module")
def exported(finished_run: Path) -> tuple[Path, dict[str, Any]]:
    result = _invoke("export", finished_run, "--target", "x86-cpu", "--max-drop", "1", "--json")
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


def _moved(bundle: Path, tmp_path: Path) -> Path:
    """The bundle on a machine where its run is not."""
    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    manifest = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))
    manifest["provenance"]["run"] = "/nowhere"
    (copy / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return copy


def test_export_writes_a_bundle_with_a_ladder_of_the_fixed_shape(
    exported: tuple[Path, dict[str, Any]],
) -> None:
    bundle, document = exported
    assert document["classes"] == ["dog", "house", "person"]
    names = [rung["name"] for rung in document["rungs"]]
    assert names == ["teacher", "student", "onnx-fp32", "onnx-int8"]
    for rung in document["rungs"]:
        assert {"domains", "mean_top1", "worst_domain", "size_bytes"} <= set(rung)
        for figures in rung["domains"].values():
            assert {"num_images", "top1", "agreement"} <= set(figures)
    assert document["gate"]["passed"] is True
    assert document["gate"]["max_drop"] == 1
    assert document["rungs"][2]["max_logit_difference"] < 1e-3
    sizes = {rung["name"]: rung["size_bytes"] for rung in document["rungs"]}
    assert sizes["onnx-int8"] < 0.4 * sizes["onnx-fp32"]
    left = {path.name for path in bundle.iterdir()}
    assert {"model.fp32.onnx", "model.int8.onnx", "golden.npz", "check.pyz", "recipe.md"} <= left
    assert not [p for p in bundle.parent.iterdir() if p.name.startswith(".export")]
    assert document["report"] == str(bundle.parents[1].resolve() / "report.html")
    page = Path(document["report"]).read_text(encoding="utf-8")
    assert FEW_PICTURES in page
    assert 'class="badge doubtful"' in page


def test_a_bundle_of_an_earlier_student_proves_nothing_about_the_run(
    exported: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    run = Path(shutil.copytree(exported[0].parents[1], tmp_path / "run"))
    assert FEW_PICTURES in write_report(run).read_text(encoding="utf-8")
    weights = StudentArtifact.load(run / "student").weights
    weights.write_bytes(weights.read_bytes() + b" ")
    page = write_report(run).read_text(encoding="utf-8")
    assert "Proven" not in page
    assert "Bundle x86-cpu holds an earlier student" in page


def test_golden_images_are_held_out_and_balanced(
    exported: tuple[Path, dict[str, Any]], finished_run: Path
) -> None:
    golden = np.load(exported[0] / "golden.npz", allow_pickle=False)
    assert len(golden["images"]) == 32
    calibration = json.loads((exported[0] / "calibration.json").read_text(encoding="utf-8"))
    digests = set(evaluation_images.image_digests(golden["images"]))
    assert not digests & set(calibration["image_digests"])
    assert {"teacher_logits", "student_logits", "int8_logits"} <= set(golden.files)


def test_the_same_export_again_opens_the_bundle_and_another_needs_exist_ok(
    exported: tuple[Path, dict[str, Any]], finished_run: Path
) -> None:
    same = ("export", finished_run, "--target", "x86-cpu", "--max-drop", "1")
    again = _invoke(*same)
    assert again.exit_code == 0
    assert "already exported" in again.stderr
    other = _invoke("export", finished_run, "--target", "x86-cpu", "--max-drop", "0.5")
    assert isinstance(other.exception, RunDirError)
    assert "--exist-ok" in str(other.exception)


@pytest.mark.slow
def test_a_failed_gate_is_exit_code_3_and_keeps_the_bundle(
    finished_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "harsh"
    result = _invoke("export", finished_run, "--target", "x86-cpu", *HARSH, "-o", folder)
    assert isinstance(result.exception, GateFailedError)
    assert result.exception.exit_code == 3
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["status"] == "failed"
    assert (folder / "model.int8.onnx").is_file()
    program = [sys.executable, "-m", "dfkd_edge", "check", str(_moved(folder, tmp_path)), "--json"]
    done = subprocess.run(program, capture_output=True, text=True)
    document = json.loads(done.stdout)
    assert (done.returncode == 3) is not document["gate"]["passed"]
    assert "golden images alone" in done.stderr


def test_a_jetsons_bundle_gives_its_golden_logits_on_this_machine(
    finished_run: Path, tmp_path: Path
) -> None:
    folder, result = tmp_path / "bundle", tmp_path / "result.json"
    _invoke("export", finished_run, "--target", "jetson", "--max-drop", "1", "-o", folder)
    program = [sys.executable, str(folder / "check.pyz"), "--duration", "0", "--precision"]
    done = subprocess.run([*program, "all", "--output", str(result)], capture_output=True)
    found = json.loads(result.read_text(encoding="utf-8"))["models"]
    assert done.returncode == 0, done.stderr
    assert {name: model["golden"]["passed"] for name, model in found.items()} == {
        "fp32": True,
        "int8": True,
    }


@pytest.mark.slow
def test_a_missed_gate_is_mended_or_reported(finished_run: Path, tmp_path: Path) -> None:
    arguments = ("--target", "jetson", *CLIPPED, "export.percentile=95", "--max-drop", "0.02")
    _invoke("export", finished_run, *arguments, "-o", tmp_path / "bundle")
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text(encoding="utf-8"))
    rescue = manifest["provenance"]["rescue"]
    assert rescue["repair"]["num_quantizable"] > 20
    assert rescue["repair"]["drop_after"] <= rescue["repair"]["drop_before"]
    assert rescue["repair"]["passed"] or rescue["finetune"]["num_steps"] == 4
    assert len(rescue["repair"]["sensitivities"]) == 4
    assert "other views" in rescue["chosen_on"]
    ladder = json.loads((tmp_path / "bundle" / "validation.json").read_text(encoding="utf-8"))
    assert (manifest["status"] == "passed") is ladder["gate"]["passed"]


def test_check_measures_labelled_domains_and_passes_strangers_over(
    exported: tuple[Path, dict[str, Any]], pictures: Path
) -> None:
    (pictures / "day" / "cat").mkdir()
    (pictures / "day" / "dog" / "torn.png").write_bytes(b"torn")
    result = _invoke("check", exported[0], "--data", pictures, "--max-drop", "1", "--json")
    assert result.exit_code == 0, result.exception
    document = json.loads(result.stdout)
    assert {d: f["num_images"] for d, f in document["rungs"][0]["domains"].items()} == {
        "day": 6,
        "night": 6,
    }
    assert document["measure"] == "top1"
    assert document["rungs"][1]["mean_top1"] is not None
    assert "no class of the list: day/cat" in result.stderr
    assert "1 unreadable" in result.stderr
    page = Path(document["report"]).read_text(encoding="utf-8")
    assert "measured by check for x86-cpu" in page
    assert f"{document['rungs'][-1]['mean_top1']:.1%}" in page


def test_calibration_pictures_are_refused_as_evaluation_pictures(
    exported: tuple[Path, dict[str, Any]], finished_run: Path, tmp_path: Path
) -> None:
    tensors = load_tensors(finished_run / "surrogates" / "shard-00000.safetensors")
    (tmp_path / "seen" / "dog").mkdir(parents=True)
    for number, image in enumerate(tensors["images"]):
        Image.fromarray(image).save(tmp_path / "seen" / "dog" / f"{number}.png")
    result = _invoke("check", exported[0], "--data", tmp_path / "seen")
    assert isinstance(result.exception, ConfigError)
    assert "share pictures" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "kind", "fault"),
    [
        (("--target", "jetsn"), ConfigError, "did you mean jetson"),
        (("--target", "nano", "--precision", "int8"), ConfigError, "does not compute in int8"),
        (("--batch", "many"), ConfigError, "names no batch sizes"),
        (("--calib-size", "20"), ConfigError, "calibration images are too few"),
        (("--data", "missing"), UsageError, "no such folder"),
        (("--data", "{empty}"), UsageError, "no picture of any class"),
        (("--calib-data", "{empty}"), ConfigError, "no picture in the folder"),
        (("--set", "seed=3"), ConfigError, "no setting of export"),
    ],
)
def test_a_wrong_request_is_one_line_and_writes_nothing(
    finished_run: Path, tmp_path: Path, arguments: tuple[str, ...], kind: type, fault: str
) -> None:
    (tmp_path / "empty").mkdir()
    filled = [a.replace("{empty}", str(tmp_path / "empty")) for a in arguments]
    result = _invoke("export", finished_run, *filled, "-o", tmp_path / "bundle")
    assert isinstance(result.exception, kind), result.exception
    assert fault in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not (tmp_path / "bundle").exists()


def test_a_run_without_a_student_and_no_run_at_all_are_told_apart(
    finished_run: Path, tmp_path: Path
) -> None:
    assert "no run here" in str(_invoke("export", tmp_path / "none").exception)
    half = tmp_path / "half"
    shutil.copytree(finished_run, half)
    manifest = json.loads((half / "manifest.json").read_text(encoding="utf-8"))
    del manifest["stages"]["student"]
    (half / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    result = _invoke("export", half)
    assert isinstance(result.exception, RunDirError)
    assert "no finished student" in str(result.exception)


@pytest.mark.parametrize(
    ("file", "content", "fault"),
    [
        ("classes.txt", "dog\nhorse\nperson\n", "classes are not those of the student"),
        ("surrogates/shard-00000.safetensors", "", "missing or damaged"),
        ("student/student.json", "{}", "missing or damaged"),
    ],
)
def test_a_run_whose_files_do_not_belong_together_is_not_exported(
    file: str, content: str, fault: str, finished_run: Path, tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(finished_run, mixed)
    (mixed / file).write_text(content, encoding="utf-8")
    result = _invoke("export", mixed, "--target", "x86-cpu")
    assert isinstance(result.exception, ArtifactError)
    assert fault in str(result.exception)
    assert file in str(result.exception)


def test_check_refuses_what_is_no_bundle_and_what_was_edited(
    exported: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    assert isinstance(_invoke("check", tmp_path).exception, UsageError)
    copy = tmp_path / "copy"
    shutil.copytree(exported[0], copy)
    with (copy / "model.int8.onnx").open("ab") as stream:
        stream.write(b"x")
    result = _invoke("check", copy)
    assert isinstance(result.exception, ArtifactError)
    assert "model.int8.onnx" in str(result.exception)


def test_the_plan_of_a_check_counts_the_images_that_the_check_sees(
    exported: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    bundle, document = exported
    plan = json.loads(_invoke("check", bundle, "--dry-run", "--json").stdout)
    assert plan["rungs"] == [rung["name"] for rung in document["rungs"]]
    seen = document["rungs"][0]["domains"]
    assert {d["name"]: d["num_images"] for d in plan["domains"]} == {
        name: figures["num_images"] for name, figures in seen.items()
    }
    assert {d["name"]: d["corruptions"] for d in plan["domains"]}["weather"] == [
        "fog",
        "snow",
        "rain",
    ]
    sum_ms = sum(rung["latency_ms"] or 0 for rung in document["rungs"])
    assert plan["seconds"] == pytest.approx(plan["num_images"] * sum_ms / 1e3)
    assert plan["measure"] == document["measure"]
    moved = json.loads(_invoke("check", _moved(bundle, tmp_path), "--dry-run", "--json").stdout)
    assert [(d["name"], d["num_images"]) for d in moved["domains"]] == [("golden images", 32)]


def test_the_plan_of_a_check_on_pictures_is_readable_and_writes_nothing(
    exported: tuple[Path, dict[str, Any]], pictures: Path, tmp_path: Path
) -> None:
    bundle = Path(shutil.copytree(exported[0], tmp_path / "bundle"))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    result = _invoke("check", bundle, "--data", pictures, "--max-drop", "0.02", "--dry-run")
    lines = result.stdout.splitlines()
    assert "models    teacher, student, onnx-fp32, onnx-int8" in lines
    assert "          day: 6" in lines
    assert "how       every model sees each of 12 images once" in lines
    assert "gate      top-1 may fall by 2 points on the worst domain" in lines
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    refused = _invoke("check", bundle, "--data", tmp_path / "none", "--dry-run")
    assert isinstance(refused.exception, UsageError)


def test_dry_run_shows_the_plan_and_writes_nothing(finished_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    flags = ("--target", "jetson", "--batch", "1,4", "-o", folder, "--dry-run", "--json")
    result = _invoke("export", finished_run, *flags)
    document = json.loads(result.stdout)
    assert document["target"] == "orin-nano-8gb-super@jp6.2"
    assert document["config"]["batch"] == [1, 4]
    assert not folder.exists()
