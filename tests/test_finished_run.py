from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dfkd_edge.class_names import read_class_names
from dfkd_edge.config_file import load_config
from dfkd_edge.errors import ArtifactError
from dfkd_edge.finished_run import read_finished_surrogates


def test_a_run_whose_student_learnt_from_images_held_out_here_is_refused(
    tiny_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    config, names = load_config(run / "config.toml"), read_class_names(run / "classes.txt")
    summary = run / "surrogates" / "surrogates.json"
    document = json.loads(summary.read_text(encoding="utf-8"))
    assert read_finished_surrogates(run, config, names).is_heldout.sum() == document["num_heldout"]
    document["num_heldout"] += 1
    summary.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ArtifactError, match="held out by another version"):
        read_finished_surrogates(run, config, names)
