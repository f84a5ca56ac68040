"""A small run as `distill` leaves it, whose names try to become markup."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dfkd_edge.artifacts import PromptSet, StudentArtifact, save_tensors
from dfkd_edge.config import PipelineConfig
from dfkd_edge.config_file import to_toml
from dfkd_edge.kept_images import selection_path
from dfkd_edge.run_dir import atomic_write, open_run
from dfkd_edge.validation.metrics import summarise
from dfkd_edge.validation.reliability import confusion, reliability

EVIL = '<script>alert("x")</script>'
CLASSES = (EVIL, "dog & cat", "house")
STYLES = ("ink' onload='x", "snow")


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
        prompts = PromptSet(CLASSES, STYLES, embeddings, index % 3, index % 2, {"rank": 2.0})
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
        counts = {"num_images": 5, "num_heldout": 1, "num_candidates": 6, "num_stand_ins": 1}
        summary: dict[str, Any] = {**counts, "acceptance": 4 / 6}
        summary["classes"] = [
            {"name": n, "num_images": 2, "num_drawn": 1, "acceptance": 0.5} for n in CLASSES
        ]
        atomic_write(path / "surrogates" / "surrogates.json", json.dumps(summary))
        settings = {"timm_name": "tiny", "num_parameters": 1_000, "teacher_num_parameters": 4_000}
        student = StudentArtifact(run_dir.stage_dir("student"), {**settings, "classes": CLASSES})
        student.save_settings()
        for step in range(3):
            run_dir.append_metrics("student", step, {"loss": 1.0 / (step + 1)})
    return path
