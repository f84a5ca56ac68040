"""result.json: what a check found, in words and on disk."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from dfkd_edge.runtime import device
from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.runtime.caveats import why_no_target
from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.documents import read_json
from dfkd_edge.runtime.faults import Fault, LackingFault
from dfkd_edge.runtime.plain_text import printable
from dfkd_edge.runtime.safe_files import write_atomically

if TYPE_CHECKING:
    from dfkd_edge.runtime.golden import GoldenResult
    from dfkd_edge.runtime.scoring import FolderScore
    from dfkd_edge.runtime.timing import DeviceLatency

MARKER = "dfkd-edge device result"


@dataclass(frozen=True)
class PreprocessResult:
    """Whether pictures are prepared here as for the training."""

    by: str = ""  # What made the model's input of the test card: `Pillow`, or the user's file
    cause: str = ""  # What differs; empty where nothing does
    reason: str = ""  # Why it was not tried; empty where it was

    def to_json(self) -> dict[str, object]:
        """Return what result.json holds."""
        if self.reason:
            return {"checked": False, "reason": self.reason}
        return {"checked": True, "by": self.by, "cause": self.cause}


@dataclass(frozen=True)
class ModelResult:
    """What a check found of one model."""

    memory_before_mib: float  # Peak memory of the process before the model was loaded
    backend: str
    version: str  # Of the backend
    settings: dict[str, object]  # As Session.settings
    notes: list[str]  # How the graph differs from the bundle's precision, a sentence each
    not_target: str  # Why this run is not one on the target; empty where it is
    size_bytes: int  # Of the file that runs
    golden: GoldenResult
    latency: DeviceLatency | None  # None where none was asked for
    data: FolderScore | None  # None without labelled pictures

    def to_json(self) -> dict[str, object]:
        """Return what result.json holds."""
        # readers look whether `latency` and `data` are there
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass
class CheckResult:
    """What a check found; it grows while the check runs."""

    bundle: Bundle
    preprocess: PreprocessResult = field(default_factory=PreprocessResult)
    models: dict[str, ModelResult] = field(default_factory=dict)  # By precision
    faults: list[Fault] = field(default_factory=list)
    time: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    """Of the start, in UTC."""

    @property
    def not_target(self) -> str:
        """Why no model ran as on the target; empty where one did."""
        reasons = [model.not_target for model in self.models.values()]
        reasons = reasons or [why_no_target(self.bundle.manifest.machine)]
        return reasons[0] if all(reasons) else ""

    @property
    def verdict(self) -> str:
        """Say whether the check passed, and whether it ran beside the target."""
        passed = f"not passed: {counted(len(self.faults), 'fault')}" if self.faults else "passed"
        return passed + (f" ({self.not_target})" if self.not_target else "")

    def to_json(self) -> dict[str, object]:
        """Return what result.json holds."""
        manifest = self.bundle.manifest
        return {
            "marker": MARKER,
            "time": self.time,
            "bundle": {
                "target": manifest.target,
                "version": manifest.version,
                "precision": manifest.precision,
                "status": manifest.status,
                "manifest_sha256": self.bundle.sha256,
            },
            "device": device.describe(),
            "models": {name: model.to_json() for name, model in self.models.items()},
            "preprocess": self.preprocess.to_json(),
            "faults": [str(fault) for fault in self.faults],
            "passed": not self.faults,
            "not_target": self.not_target,
        }

    def why_kept(self, path: Path) -> str:
        """Say why an earlier result of the bundle is not replaced by one that holds no model."""
        if self.models or not _holds_model(path, self.bundle.sha256):
            return ""
        what = "no model was run, so the earlier result stays as it is"
        return f"{what} ({path}): name another file with --output"

    def write(self, path: Path) -> None:
        """Write the result whole.

        Raises:
            LackingFault: the disk is full or not writable.
        """
        write_document(path, self.to_json())


def write_document(path: Path, document: dict[str, object]) -> None:
    """Write what was found, whole.

    Raises:
        LackingFault: the disk is full or not writable.
    """
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    try:
        write_atomically(path, printable(text).encode("utf-8"))  # names may be no UTF-8
    except OSError as error:
        what = f"result cannot be written: {error.strerror}"
        raise LackingFault(what, str(path), "name a file with --output") from error


def _holds_model(path: Path, manifest_sha256: str) -> bool:
    try:
        earlier = read_json(path)
    except Fault:
        return False
    bundle = earlier.get("bundle")
    is_of_it = isinstance(bundle, dict) and bundle.get("manifest_sha256") == manifest_sha256
    return earlier.get("marker") == MARKER and bool(earlier.get("models")) and is_of_it
