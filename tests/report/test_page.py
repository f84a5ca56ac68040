"""The report of a real run, of a bundle, and of names that try to become markup."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from dfkd_edge.artifacts import PromptSet, StudentArtifact, save_tensors
from dfkd_edge.cli import app
from dfkd_edge.config import PipelineConfig, to_toml
from dfkd_edge.deployment.bundle import Bundle, open_bundle
from dfkd_edge.errors import ArtifactError, RunDirError, UsageError
from dfkd_edge.report import report_path, write_report
from dfkd_edge.report.page import SECTIONS
from dfkd_edge.run_dir import atomic_write, open_run
from dfkd_edge.runtime.check import MARKER
from dfkd_edge.validation.metrics import summarise
from dfkd_edge.validation.reliability import confusion, reliability

EVIL = '<script>alert("x")</script>'
CLASSES = (EVIL, "dog & cat", "house")
STYLES = ("ink' onload='x", "snow")


class Page(HTMLParser):
    """What a browser would make of the page: elements, addresses, text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def _evaluation(num_images: int = 40) -> dict[str, Any]:
    random = np.random.default_rng(0)
    labels = np.arange(num_images) % len(CLASSES)
    figures = {}
    for name, skill in (("teacher", 3.0), ("student-start", 0.5), ("student", 2.0)):
        logits = random.normal(size=(num_images, len(CLASSES))) + skill * np.eye(3)[labels]
        right = logits.argmax(1) == labels
        figures[name] = {
            "num_images": num_images,
            "top1": float(right.mean()),
            "top1_interval": [float(right.mean()) - 0.1, float(right.mean()) + 0.1],
            "agreement": 0.5,
            "confusion": confusion(labels, logits.argmax(1), CLASSES),
            "reliability": reliability(logits, right),
        }
    return summarise(CLASSES, {"held-out surrogates": figures, f"photo {EVIL}": figures})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A small run as `distill` leaves it, with hostile names."""
    random = np.random.default_rng(0)
    path = tmp_path / "runs" / "evil <b>run"
    with open_run(path, "key", resume=True, exist_ok=False) as run_dir:
        atomic_write(path / "config.toml", to_toml(PipelineConfig(classes=EVIL)))
        atomic_write(path / "evaluation.json", json.dumps(_evaluation()))
        index = np.arange(6)
        embeddings = random.normal(size=(6, 8)).astype(np.float32)
        prompts = PromptSet(CLASSES, STYLES, embeddings, index % 3, index % 2, {"rank": 2.0})
        run_dir.complete("prompts", "key", prompts.save(run_dir.stage_dir("prompts")))
        shard: dict[str, NDArray[Any]] = {
            "images": random.integers(0, 255, (6, 16, 16, 3)).astype(np.uint8),
            "class_index": index % 3,
            "style_index": index % 2,
            "is_recognised": index > 0,
        }
        save_tensors(run_dir.stage_dir("surrogates") / "shard-00000.safetensors", shard)
        summary = {"num_images": 5, "num_candidates": 6, "classes": []}
        summary["classes"] = [{"name": n, "num_images": 2, "acceptance": 0.5} for n in CLASSES]
        atomic_write(path / "surrogates" / "surrogates.json", json.dumps(summary))
        settings = {"timm_name": "tiny", "num_parameters": 1_000, "teacher_num_parameters": 4_000}
        student = StudentArtifact(run_dir.stage_dir("student"), {**settings, "classes": CLASSES})
        student.save_settings()
        for step in range(3):
            run_dir.append_metrics("student", step, {"loss": 1.0 / (step + 1)})
    return path


def _device(path: Path, name: str, p50: float) -> Path:
    latency = {"percentile_ms": {"p50": p50, "p90": p50 + 1, "p99": p50 + 2}}
    model = {"backend": "tensorrt", "golden": {"passed": True}, "latency": latency}
    document = {"marker": MARKER, "device": {"board": name}, "models": {"int8": model}}
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_the_report_of_a_run_has_every_section_and_its_key_numbers(run: Path) -> None:
    path = write_report(run)
    assert path == report_path(run) == run.resolve() / "report.html"
    page = Page(path.read_text(encoding="utf-8"))
    assert page.tags.count("section") == len(SECTIONS)
    student = _evaluation()["rungs"][-1]["domains"][f"photo {EVIL}"]
    assert f"{student['top1']:.1%}" in page.text
    assert f"{_evaluation()['retention']:.1%}" in page.text
    assert f"ECE {student['reliability']['ece']:.1%}" in page.text
    assert "4.0 times smaller" in page.text
    assert page.tags.count("img") == 6 + 1
    assert path.stat().st_size < 5_000_000


def test_names_stay_text_wherever_they_appear(run: Path) -> None:
    text = write_report(run, [_device(run / "a.json", EVIL, 1)]).read_text(encoding="utf-8")
    page = Page(text)
    assert page.tags.count("script") == 1
    assert "b" not in page.tags
    assert text.count("<script>") == 1
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert text.count("&lt;script&gt;") > 8


def test_the_report_needs_no_network(run: Path) -> None:
    text = write_report(run).read_text(encoding="utf-8")
    addresses = [v for name, v in Page(text).attributes if name in ("src", "href", "srcset")]
    assert all(value.startswith(("#", "data:image/jpeg;base64,")) for value in addresses)
    assert not re.search(r"url\(|@import|https?:", text)
    assert "default-src 'none'" in text


def test_what_is_missing_names_the_command_that_makes_it(run: Path) -> None:
    page = Page(write_report(run).read_text(encoding="utf-8"))
    for command in ("dfkd-edge export", "dfkd-edge benchmark", "python3 check.pyz"):
        assert command in page.text
    (run / "student" / "student.json").unlink()
    assert "Not distilled yet" in write_report(run).read_text(encoding="utf-8")


def test_devices_merge_into_one_table_and_count_once(run: Path, tmp_path: Path) -> None:
    first, second = (_device(tmp_path / f"{n}.json", f"board {n}", n) for n in (7, 9))
    again = tmp_path / "again.json"
    again.write_bytes(first.read_bytes())
    text = Page(write_report(run, [first, second, again]).read_text(encoding="utf-8")).text
    assert (text.count("board 7"), text.count("board 9")) == (1, 1)
    assert "7.00" in text
    assert "11.00" in text


def test_a_bundle_outside_a_run_holds_its_own_report_and_stays_whole(tiny_bundle: Bundle) -> None:
    path = write_report(tiny_bundle.folder)
    assert path.parent == tiny_bundle.folder
    open_bundle(tiny_bundle.folder)
    assert "great dane" in path.read_text(encoding="utf-8")


def test_a_foreign_file_is_no_result_and_a_foreign_folder_no_run(run: Path, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ArtifactError, match="no JSON object"):
        write_report(run, [tmp_path / "other.json"])
    with pytest.raises(ArtifactError, match=r"check\.pyz"):
        write_report(run, [run / "evaluation.json"])
    with pytest.raises(ArtifactError, match="cannot be read"):
        write_report(run, [tmp_path / "missing.json"])
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "file").touch()
    with pytest.raises(RunDirError):
        write_report(tmp_path / "foreign")


def test_the_command_names_the_file_and_takes_one_run(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["report", str(run), "-o", str(output), "--json"])
    assert json.loads(done.stdout)["report"] == str(output)
    assert output.is_file()
    assert isinstance(CliRunner().invoke(app, ["report", "a", "b"]).exception, UsageError)
