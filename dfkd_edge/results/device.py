"""Results of devices: read with care, for they come from other machines, and kept for every page.

A run, or a bundle outside of one, keeps each result in `devices/`, a file a result; beside them
counts the `result.json` that check.pyz wrote into a bundle that lies here.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfkd_edge.class_names import slug
from dfkd_edge.errors import ArtifactError, DfkdEdgeError, UsageError
from dfkd_edge.files import atomic_write
from dfkd_edge.runtime.bundle_files import DEVICE_RESULT, DEVICES, was_bundle
from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.device_result import MARKER

MAX_BYTES = 64 << 20
OF_ANOTHER = "of an earlier or another bundle"
"""Said of a result whose bundle does not lie here: a hash tells no more."""


@dataclass(frozen=True, slots=True)
class DeviceResult:
    """A result.json that check.pyz wrote."""

    path: Path
    document: dict[str, Any]
    text: str
    """The document as JSON, as it is kept: equal content, equal text."""

    @property
    def bundle_sha256(self) -> str:
        """Hash of the manifest of the bundle that was checked; empty where it does not say."""
        return str(self.document.get("bundle", {}).get("manifest_sha256", ""))

    @property
    def device(self) -> str:
        """What the device calls itself."""
        facts = self.document["device"]
        return str(facts.get("board") or facts.get("cpu") or facts.get("machine") or "device")

    @property
    def is_device(self) -> bool:
        """Whether it is of the target, in one of its precisions; results of hosts are marked.

        A board on which no model could be opened has answered too: with faults.
        """
        answers = self.document["models"].values() or [self.document]
        return any(not answer.get("not_target") for answer in answers)

    def summary(self, known: Collection[str]) -> dict[str, Any]:
        """Describe it for `report --json` and `inspect --json`.

        Args:
            known: hashes of the manifests of the bundles that lie here.
        """
        return {
            "device": self.device,
            "file": str(self.path),
            "time": self.document.get("time"),
            "of_bundle_here": self.bundle_sha256 in known,
            "summary": self._sentence(known),
        }

    def _sentence(self, known: Collection[str]) -> str:
        """Say in a line which device answered, how fast, and of which bundle."""
        times = [
            f"{name} {model['latency']['percentile_ms']['p50']:.2f} ms"
            for name, model in self.document["models"].items()
            if "p50" in model.get("latency", {}).get("percentile_ms", {})
        ]
        num_faults = len(self.document.get("faults", ()))
        parts = [*times, *[counted(num_faults, "fault")] * bool(num_faults)]
        parts += ["a host, not the target"] * (not self.is_device)
        parts += [OF_ANOTHER] * (self.bundle_sha256 not in known)
        return f"{self.device}: {', '.join(parts) or 'no model was timed'} ({self.path.name})"


def read_result(path: Path) -> DeviceResult:
    """Read a result.

    Raises:
        UsageError: there is no such file.
        ArtifactError: it is damaged, holds what no page can show, or is none of ours.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ArtifactError("file is larger than any of ours", where=str(path))
        document = json.loads(path.read_text(encoding="utf-8"))
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        text.encode()  # Python's parser takes NaN, 1e999 and half a surrogate pair; JSON does not
    except FileNotFoundError as error:
        hint = "name a result.json that check.pyz wrote"
        raise UsageError("no such file", where=str(path), hint=hint) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(
            "file cannot be read as JSON", where=str(path), hint=_instead(path)
        ) from error
    if not isinstance(document, dict):
        raise ArtifactError("file holds no JSON object", where=str(path), hint=_instead(path))
    if document.get("marker") != MARKER:
        raise ArtifactError("is no result of check.pyz", where=str(path), hint=_instead(path))
    if not _is_whole(document):
        raise ArtifactError("result is not whole", where=str(path), hint=_instead(path))
    return DeviceResult(path, document, text)


def _instead(path: Path) -> str:
    """What to do about a file that is no result; every page names a kept one until it is gone."""
    if path.parent.name == DEVICES:
        return "delete it, then merge the result of the device again"
    if was_bundle(path.parent):
        return "delete it, or let python3 check.pyz there write it again"
    return "python3 check.pyz writes a result.json"


def keep_results(folder: Path, results: Sequence[DeviceResult]) -> None:
    """Copy results into `devices/` of a run or bundle, for every later page.

    A file is named after the device and its content: the same result is kept once, and two boards
    of a kind, which tell no serial number, do not replace each other.

    Raises:
        EnvironmentLackingError: the disk is full or not writable.
    """
    for result in results:
        digest = hashlib.sha256(result.text.encode()).hexdigest()[:8]
        name = f"{slug(result.device)}-{digest}.json"
        atomic_write(folder / DEVICES / name, result.text)


def kept_results(
    folder: Path, bundles: Iterable[Path] = ()
) -> tuple[list[DeviceResult], list[DfkdEdgeError]]:
    """Read what a run or bundle keeps, and what check.pyz wrote into bundles that lie here.

    Returns:
        The results, and why others cannot be read: one damaged file hides no other.
    """
    written = [bundle / DEVICE_RESULT for bundle in bundles]
    found: list[DeviceResult] = []
    unread: list[DfkdEdgeError] = []
    for path in (*filter(Path.is_file, written), *_kept_files(folder)):
        try:
            found.append(read_result(path))
        except DfkdEdgeError as error:
            unread.append(error)
    return distinct(found), unread


def distinct(results: Iterable[DeviceResult]) -> list[DeviceResult]:
    """Leave out what was read before, in other files of the same content."""
    found: dict[str, DeviceResult] = {}
    for result in results:
        found.setdefault(result.text, result)
    return list(found.values())


def _kept_files(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / DEVICES).glob("*.json") if path.name[0] != ".")


def _is_whole(document: dict[str, Any]) -> bool:
    """Whether a result has the form that check.pyz gives it; it comes from another machine."""
    models, bundle = document.get("models"), document.get("bundle", {})
    return (
        all(isinstance(part, dict) for part in (document.get("device"), models, bundle))
        and isinstance(document.get("faults", []), list)
        and all(isinstance(model, dict) and _is_whole_model(model) for model in models.values())  # type: ignore[union-attr]
    )


def _is_whole_model(model: dict[str, Any]) -> bool:
    latency = model.get("latency", {})
    parts = [latency, *(model.get(key, {}) for key in ("golden", "data", "settings"))]
    if not all(isinstance(part, dict) for part in parts):
        return False
    times, state = latency.get("percentile_ms", {}), latency.get("state", {})
    numbers = [latency.get(key) for key in ("throughput_per_s", "peak_memory_mib")]
    share = model.get("data", {}).get("mean_top1")
    return (
        isinstance(times, dict)
        and isinstance(state, dict)
        and isinstance(latency.get("doubts", []), list)
        and isinstance(model.get("notes", []), list)
        and all(_is_number(value) for value in times.values())
        and all(value is None or _is_number(value) for value in numbers)
        and (share is None or _is_number(share, 1))
    )


def _is_number(value: object, most: float = sys.float_info.max) -> bool:
    """Whether it can be shown as a measurement; JSON has integers that no float holds."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= value <= most  # type: ignore[operator]
