"""A small run as `distill` leaves it, whose names try to become markup."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dfkd_edge.artifacts import PromptSet, StudentArtifact, save_tensors, student_weights
from dfkd_edge.config.file import to_toml
from dfkd_edge.config.settings import PipelineConfig
from dfkd_edge.files import atomic_write, file_hash
from dfkd_edge.runs.run_dir import open_run
from dfkd_edge.runs.surrogates import selection_path
from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.runtime.device_result import MARKER
from dfkd_edge.validation.confidence import confusion, reliability
from dfkd_edge.validation.evaluate import summarise
from tests.fixtures.typed import DIVERSITY, class_count, student_settings, surrogate_summary

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


@pytest.fixture
def parsed() -> type[Page]:
    """Read a page as a browser would."""
    return Page


def _device(path: Path, name: str, p50: float, bundle: Path | None = None) -> Path:
    latency = {"percentile_ms": {"p50": p50, "p90": p50 + 1, "p99": p50 + 2}}
    model = {"backend": "tensorrt", "golden": {"passed": True}, "latency": latency}
    document = {"marker": MARKER, "device": {"board": name}, "models": {"int8": model}}
    if bundle:
        document["bundle"] = {"manifest_sha256": file_hash(bundle / "manifest.json")}
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.fixture
def device_result() -> Callable[..., Path]:
    """Write what check.pyz writes on a device."""
    return _device


@pytest.fixture
def evil() -> str:
    return EVIL


@pytest.fixture
def evaluation() -> dict[str, Any]:
    return _evaluation()


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
        prompts = PromptSet(CLASSES, STYLES, embeddings, index % 3, index % 2, DIVERSITY)
        run_dir.complete("prompts", "key", prompts.save(run_dir.stage_dir("prompts")))
        shard: dict[str, NDArray[Any]] = {
            "images": random.integers(0, 255, (6, 16, 16, 3)).astype(np.uint8),
            "class_index": index % 3,
            "style_index": index % 2,
            "is_recognised": index > 1,  # the first is a stand-in, the second is not kept
            "drawing_index": np.where(index == 2, 7, -1),
        }
        folder = run_dir.stage_dir("surrogates")
        save_tensors(folder / "shard-00000.safetensors", shard)
        save_tensors(selection_path(folder), {"is_kept": index != 1})
        surrogate_summary(
            num_images=5,
            num_heldout=1,
            num_candidates=6,
            num_unrecognised=1,
            acceptance=4 / 6,
            classes=tuple(class_count(n, num_drawn=1, acceptance=0.5) for n in CLASSES),
        ).save(folder)
        settings = student_settings(classes=CLASSES)
        StudentArtifact(run_dir.stage_dir("student"), settings).save_settings()
        for step in range(3):
            run_dir.append_metrics("student", step, {"loss": 1.0 / (step + 1)})
    return path


@pytest.fixture
def into_run(run: Path, tiny_bundle: Bundle) -> Callable[[], Path]:
    def copied() -> Path:
        """Put a bundle of the run's student into the run."""
        folder = run / "bundles" / "tiny"
        shutil.copytree(tiny_bundle.folder, folder)
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        weights = student_weights(run / "student")
        weights.write_bytes(b"")
        manifest["provenance"]["student_sha256"] = file_hash(weights)
        (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        return folder

    return copied


@pytest.fixture
def bundle(into_run: Callable[[], Path]) -> Path:
    """A bundle of the student that lies in the run."""
    return into_run()
