"""A small run as `distill` leaves it, whose names try to become markup."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dfkd_edge.artifacts import PromptSet, StudentArtifact, save_tensors, student_weights
from dfkd_edge.config.file import to_toml
from dfkd_edge.config.settings import PipelineConfig
from dfkd_edge.files import atomic_write, file_hash
from dfkd_edge.results.confidence import Reliability
from dfkd_edge.results.ladder import Ladder
from dfkd_edge.runs.run_dir import open_run
from dfkd_edge.runs.surrogates import selection_path
from dfkd_edge.runtime.bundle_files import Bundle
from tests.fixtures.files import edit_json
from tests.fixtures.ladders import figures, ladder, rung
from tests.fixtures.typed import DIVERSITY, class_count, student_settings, surrogate_summary
from tests.report.pages import EVIL, keep

CLASSES = (EVIL, "dog & cat", "house")
STYLES = ("ink' onload='x", "snow")
CONFUSION = {EVIL: {EVIL: 14}, "dog & cat": {"dog & cat": 9, "house": 4}, "house": {"house": 13}}
BINS = Reliability(1.0, 0.125, (((0, None, None),) * 9) + ((40, 0.9, 0.775),))


@pytest.fixture
def evaluation() -> Ladder:
    """What `distill` measured: three rungs, on surrogates and on labelled photos."""

    def measured(name: str, share: float) -> Any:
        part = figures(share, 40, confusion=CONFUSION, reliability=BINS)
        return rung(name, {"held-out surrogates": part, f"photo {EVIL}": part})

    shares = {"teacher": 0.95, "student-start": 0.35, "student": 0.9}
    rungs = (measured(name, share) for name, share in shares.items())
    return ladder(*rungs, mean_over=(f"photo {EVIL}",), classes=CLASSES)


@pytest.fixture
def run(tmp_path: Path, evaluation: Ladder) -> Path:
    """A small run as `distill` leaves it, with hostile names."""
    random = np.random.default_rng(0)
    path = tmp_path / "runs" / "evil <b>run"
    with open_run(path, "key", resume=True, exist_ok=False) as run_dir:
        atomic_write(path / "config.toml", to_toml(PipelineConfig(classes=EVIL)))
        keep(path, evaluation)
        index = np.arange(6)
        embeddings = random.normal(size=(6, 8)).astype(np.float32)
        prompts = PromptSet(CLASSES, STYLES, embeddings, index % 3, index % 2, DIVERSITY)
        run_dir.complete("prompts", "key", prompts.save(run_dir.stage_dir("prompts")))
        shard: dict[str, NDArray[Any]] = {
            "images": random.integers(0, 255, (6, 16, 16, 3)).astype(np.uint8),
            "class_index": index % 3,
            "style_index": index % 2,
            "is_recognised": index > 1,  # the first is kept all the same, the second is not
            "drawing_index": np.where(index == 2, 7, -1),
        }
        folder = run_dir.stage_dir("surrogates")
        save_tensors(folder / "shard-00000.safetensors", shard)
        save_tensors(selection_path(folder), {"is_kept": index != 1})
        classes = tuple(class_count(name, num_drawn=1, acceptance=0.5) for name in CLASSES)
        surrogate_summary(
            num_images=5, num_heldout=1, num_candidates=6, num_unrecognised=1, classes=classes
        ).save(folder)
        settings = student_settings(classes=CLASSES)
        StudentArtifact(run_dir.stage_dir("student"), settings).save_settings()
        for step in range(3):
            run_dir.append_metrics("student", step, {"loss": 1.0 / (step + 1)})
    return path


@pytest.fixture
def bundle(run: Path, tiny_bundle: Bundle) -> Path:
    """A bundle of the student that lies in the run."""
    folder, weights = run / "bundles" / "tiny", student_weights(run / "student")
    shutil.copytree(tiny_bundle.folder, folder)
    weights.write_bytes(b"")
    made = tiny_bundle.manifest.provenance | {"student_sha256": file_hash(weights)}
    edit_json(folder / "manifest.json", provenance=made)
    return folder
