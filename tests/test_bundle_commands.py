from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dfkd_edge.deployment.bundle import Bundle


def run_command(*arguments: object) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "dfkd_edge", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        colour = (80 * number, 255 - 80 * number, 40)
        Image.new("RGB", (30, 20), colour).save(folder / f"{number}.png")
    return folder


def test_benchmark_measures_every_model(tiny_bundle: Bundle) -> None:
    code, output, _ = run_command(
        *("benchmark", tiny_bundle.folder, "--json", "--duration", "0.05", "--warmup", "1"),
        *("--percentile", "50,99.9", "--threads", "1"),
    )
    assert code == 0
    models: list[dict[str, Any]] = json.loads(output)["models"]
    assert [m["precision"] for m in models] == ["fp32", "int8"]
    for model in models:
        assert set(model["latency"]["percentile_ms"]) == {"p50", "p99.9"}
        assert model["threads"] == 1
        assert model["is_golden"]
        assert 0 < model["model_memory_mib"] < model["peak_memory_mib"]
    page = (tiny_bundle.folder / "report.html").read_text(encoding="utf-8")
    assert f"{models[1]['latency']['percentile_ms']['p50']:.2f}" in page


def test_predict_gives_labels_and_scores(tiny_bundle: Bundle, pictures: Path) -> None:
    code, output, errors = run_command(
        "predict", tiny_bundle.folder, pictures, pictures / "0.png", "--json", "--top", "2"
    )
    assert (code, errors) == (0, "")
    rows = json.loads(output)["pictures"]
    assert [Path(row["file"]).name for row in rows] == ["0.png", "1.png", "2.png", "0.png"]
    for row in rows:
        assert [t["label"] in tiny_bundle.classes for t in row["top"]] == [True, True]
        assert row["top"][0]["score"] >= row["top"][1]["score"]


def test_predict_answers_unknown_below_the_threshold(
    tiny_bundle: Bundle, pictures: Path, tmp_path: Path
) -> None:
    answers = []
    for threshold in (0.0, 1.0):
        folder = tmp_path / f"bundle-{threshold}"
        shutil.copytree(tiny_bundle.folder, folder)
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["confidence"] = {"temperature": 2.0, "reject_threshold": threshold}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        code, output, _ = run_command("predict", folder, pictures / "0.png", "--json")
        assert code == 0
        answers.append(json.loads(output)["pictures"][0])
    assert answers[0]["label"] == answers[0]["top"][0]["label"]
    assert answers[1]["label"] == "unknown"
    assert answers[0]["top"] == answers[1]["top"]


def test_predict_keeps_the_rest_when_pictures_are_broken(
    tiny_bundle: Bundle, pictures: Path
) -> None:
    (pictures / "broken.jpg").write_bytes(b"no")
    code, output, errors = run_command(
        "predict", tiny_bundle.folder, pictures, pictures / "missing.png"
    )
    assert code == 1
    assert "great dane" in output
    assert "broken.jpg: picture cannot be read" in errors
    assert "missing.png: no such file" in errors
    assert "2 of 5 could not be classified" in errors


def test_faults_are_one_line_each(tiny_bundle: Bundle, pictures: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    for arguments, code, said in (
        (("predict", tiny_bundle.folder, empty), 2, "holds no picture"),
        (("predict", empty, pictures), 2, "holds no bundle"),
        (("predict", tiny_bundle.folder, pictures, "--precision", "fp16"), 2, "holds fp32, int8"),
        (("benchmark", tiny_bundle.folder, "--percentile", "x"), 2, "no percentiles"),
    ):
        found, _, errors = run_command(*arguments)
        assert (found, said in errors) == (code, True), errors
    (tiny_bundle.folder / "model.int8.onnx").write_bytes(b"short")
    found, _, errors = run_command("benchmark", tiny_bundle.folder)
    assert found == 1
    assert "cut short" in errors
    assert errors.count("\n") == 1
