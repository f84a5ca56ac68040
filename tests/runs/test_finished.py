from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dfkd_edge.class_names import read_class_names
from dfkd_edge.errors import ArtifactError
from dfkd_edge.files import atomic_write
from dfkd_edge.runs.finished import read_finished_surrogates
from dfkd_edge.runs.surrogates import selection_path


def test_a_run_of_a_version_that_did_not_write_down_what_it_held_out_is_refused(
    tiny_run: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    names = read_class_names(run / "classes.txt")
    assert read_finished_surrogates(run, names).is_heldout.any()
    selection_path(run / "surrogates").unlink()
    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    del manifest["stages"]["surrogates"]["files"]["surrogates/selection.safetensors"]
    atomic_write(run / "manifest.json", json.dumps(manifest))
    with pytest.raises(ArtifactError, match="selected by another version"):
        read_finished_surrogates(run, names)
