"""manifest.json of a run: which stages are done, by names and files that we know.

A run may come from elsewhere: what its manifest names is deleted and written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from dfkd_edge.errors import ArtifactError, RunDirError
from dfkd_edge.files import file_hash, read_json
from dfkd_edge.runs.lock import HOLDER, LOCK
from dfkd_edge.runtime.bundle_files import is_plain, safe_path
from dfkd_edge.runtime.faults import MANIFEST, Fault
from dfkd_edge.runtime.safe_files import LEFTOVER

MARKER = "dfkd-edge run"
STAGES = {"prompts": "the prompts", "surrogates": "the surrogate images", "student": "the student"}
"""Their folders in the run, and what each leaves there."""
FOLDERS = {*STAGES, "few_shot"}
"""Every name that a manifest may give to a stage: it is a folder that is deleted and written."""
ANOTHER_OUTPUT = "choose another --output"


class StageRecord(TypedDict):
    """A stage that is done."""

    key: str  # Hash of all that its result depends on
    files: dict[str, str]  # SHA-256 of each file by its path in the run


@dataclass(frozen=True, slots=True)
class Manifest:
    """What manifest.json holds besides its marker and our version."""

    run_key: str
    stages: dict[str, StageRecord] = field(default_factory=dict)
    earlier: dict[str, StageRecord] = field(default_factory=dict)
    """Stages of another run in this folder, until they prove to be of this one or are redone."""

    def of_run(self, run_key: str) -> Manifest:
        """Return the manifest for a run; finished stages of another run move to `earlier`."""
        if self.run_key == run_key:
            return self
        return Manifest(run_key, {}, {**self.earlier, **self.stages})


def damaged_files(run: Path, stages: Mapping[str, StageRecord]) -> list[str]:
    """Files of stages that are missing or not as they were written, relative to the run."""
    hashes = {name: sha for record in stages.values() for name, sha in record["files"].items()}
    return [name for name, sha in hashes.items() if not _is_as_written(run, name, sha)]


def _is_as_written(run: Path, name: str, sha256: str) -> bool:
    try:
        return file_hash(safe_path(run, name)) == sha256
    except (OSError, Fault):  # the latter: it is a link, or leads over one
        return False


def read_manifest(path: Path) -> Manifest | None:
    """Read the manifest of a run; None in an empty folder, or after a kill before the first."""
    if path.is_file():
        raise _foreign("is a file, not a folder", path)
    if not os.path.lexists(path / MANIFEST):
        names = {child.name for child in path.iterdir()} if path.exists() else set()
        if all(LEFTOVER.fullmatch(name) for name in names - {LOCK, HOLDER}):
            return None
        raise _foreign("folder is not empty and holds no run", path)
    document = read_json(path / MANIFEST, "use a new --output")
    if document.get("marker") != MARKER:
        raise _foreign("folder holds no run of ours", path)
    parts = (document.get("run_key"), document.get("stages"), document.get("earlier"))
    if not isinstance(parts[0], str) or not all(map(_are_records, parts[1:])):
        raise ArtifactError(
            "manifest cannot be read",
            where=str(path / MANIFEST),
            hint="use a new --output",
        )
    return Manifest(*parts)  # type: ignore[arg-type]


def _are_records(stages: object) -> bool:
    """Whether a part of a manifest holds stages that we know, with files of their own folders."""
    return isinstance(stages, dict) and all(
        stage in FOLDERS
        and isinstance(record, dict)
        and isinstance(record.get("key"), str)
        and isinstance(record.get("files"), dict)
        and all(
            isinstance(sha, str) and is_plain(name) and name.partition("/")[0] == stage
            for name, sha in record["files"].items()
        )
        for stage, record in stages.items()
    )


def _foreign(what: str, path: Path) -> RunDirError:
    return RunDirError(what, where=str(path), hint=ANOTHER_OUTPUT)
