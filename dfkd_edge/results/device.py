"""Results of devices: read with care, for they come from other machines, and kept for every page.

A run, or a bundle outside of one, keeps each result in `devices/`, a file a result; beside them
counts the `result.json` that check.pyz wrote into a bundle that lies here.
"""

import hashlib
import json
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from dfkd_edge.class_names import slug
from dfkd_edge.errors import ArtifactError, DfkdEdgeError, UsageError
from dfkd_edge.files import atomic_write, file_hash, read_json
from dfkd_edge.results.codec import Documented, from_json
from dfkd_edge.runtime.bundle_files import DEVICE_RESULT, DEVICES, MANIFEST, was_bundle
from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.device_result import MARKER

OF_ANOTHER = "of an earlier or another bundle"  # The hash of one that is not here tells no more


@dataclass(frozen=True, slots=True)
class FromZero:
    """Annotates a number that can be shown as a measurement: 0 to `most`, no text and no bool."""

    most: float = sys.float_info.max  # JSON has integers that no float holds

    def __get_pydantic_core_schema__(self, _source: object, _handler: object) -> object:
        """Build the check, as pydantic asks for it."""
        from pydantic_core import core_schema  # only where something is read: a tenth of a second

        return core_schema.float_schema(strict=True, ge=0, le=self.most, allow_inf_nan=False)


Measured = Annotated[float, FromZero()]
Share = Annotated[float, FromZero(1)]


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What the device says of itself."""

    board: str = ""  # As the device tree names it
    cpu: str = ""
    machine: str = ""  # Architecture, such as `aarch64`


@dataclass(frozen=True, slots=True)
class _CheckedBundle:
    manifest_sha256: str = ""


@dataclass(frozen=True, slots=True)
class _Golden:
    passed: bool = False  # Whether the logits of the golden images are those of the host


@dataclass(frozen=True, slots=True)
class _Labelled:
    mean_top1: Share | None = None  # On labelled pictures that lie there


@dataclass(frozen=True, slots=True)
class _Settings:
    int8_in_float: bool = False  # Whether 8-bit sums saturate there: its time is no measure


@dataclass(frozen=True, slots=True)
class _DeviceState:
    power_mode: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceLatency(Documented):
    """One image from memory to result."""

    percentile_ms: dict[str, Measured] = field(default_factory=dict)
    """`p50`, `p90`, `p99`, or those that `--percentile` asked for."""
    throughput_per_s: Measured | None = None
    peak_memory_mib: Measured | None = None  # Of the whole process
    state: _DeviceState = _DeviceState()
    caveats: tuple[str, ...] = ()  # Why it may not be repeatable, a sentence each


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceModel:
    """One precision of a bundle on a device."""

    backend: str = ""
    version: str = ""
    not_target: str = ""
    """What makes it another machine or runtime than the target's; empty on the target."""
    settings: _Settings = _Settings()
    notes: tuple[str, ...] = ()
    golden: _Golden = _Golden()
    latency: DeviceLatency = DeviceLatency()  # Without percentiles where nothing was timed
    data: _Labelled = _Labelled()

    @property
    def p50_ms(self) -> float | None:
        """Median time of one image; None where it was not measured."""
        return self.latency.percentile_ms.get("p50")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceResult:
    """A result.json that check.pyz wrote."""

    path: Path
    text: str  # The document as JSON, as it is kept: equal content, equal text
    device: DeviceFacts
    bundle: _CheckedBundle = _CheckedBundle()
    models: dict[str, DeviceModel]  # By precision
    faults: tuple[str, ...] = ()
    not_target: str = ""
    """As of a model, where every model is of another; also where none could be opened."""
    time: str | None = None

    @property
    def bundle_sha256(self) -> str:
        """Hash of the manifest of the bundle that was checked; empty where it does not say."""
        return self.bundle.manifest_sha256

    @property
    def name(self) -> str:
        """What the device calls itself."""
        return self.device.board or self.device.cpu or self.device.machine or "device"

    @property
    def is_device(self) -> bool:
        """Whether it is of the target, in one of its precisions; results of hosts are marked.

        A board on which no model could be opened has answered too: with faults.
        """
        answers = [model.not_target for model in self.models.values()] or [self.not_target]
        return "" in answers

    def summary(self, known: Collection[str]) -> dict[str, object]:
        """Describe it for `report --json` and `inspect --json`."""
        return {
            "device": self.name,
            "file": str(self.path),
            "time": self.time,
            "of_bundle_here": self.bundle_sha256 in known,
            "summary": self._sentence(known),
        }

    def _sentence(self, known: Collection[str]) -> str:
        """Say in a line which device answered, how fast, and of which bundle."""
        timed = {name: model.p50_ms for name, model in self.models.items()}
        parts = [f"{name} {p50:.2f} ms" for name, p50 in timed.items() if p50 is not None]
        parts += [counted(len(self.faults), "fault")] * bool(self.faults)
        parts += ["a host, not the target"] * (not self.is_device)
        parts += [OF_ANOTHER] * (self.bundle_sha256 not in known)
        return f"{self.name}: {', '.join(parts) or 'no model was timed'} ({self.path.name})"


def read_result(path: Path) -> DeviceResult:
    """Read a result.

    Raises:
        UsageError: there is no such file.
        ArtifactError: it is damaged, holds what no page can show, or is none of ours.
    """
    hint = _instead(path)
    if not path.exists():
        example = "name a result.json that check.pyz wrote"
        raise UsageError("no such file", where=str(path), hint=example)
    document = read_json(path, hint)
    if document.get("marker") != MARKER:
        raise ArtifactError("is no result of check.pyz", where=str(path), hint=hint)
    try:
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        text.encode()  # Python's parser takes NaN, 1e999 and half a surrogate pair; JSON does not
    except ValueError as error:
        raise ArtifactError("file cannot be read as JSON", where=str(path), hint=hint) from error
    return from_json(DeviceResult, {**document, "path": path, "text": text}, path, hint)


def _instead(path: Path) -> str:
    """What to do about a file that is no result; every page names a kept one until it is gone."""
    if path.parent.name == DEVICES:
        return "delete it, then merge the result of the device again"
    if was_bundle(path.parent):
        return "delete it, or let python3 check.pyz there write it again"
    return "python3 check.pyz writes a result.json"


def keep_results(folder: Path, results: Sequence[DeviceResult]) -> None:
    """Copy results into `devices/` of a run or bundle, for every later page; equal ones once.

    Raises:
        EnvironmentLackingError: the disk is full or not writable.
    """
    for result in results:
        # boards tell no serial number: by their names alone, two of a kind would replace each other
        digest = hashlib.sha256(result.text.encode()).hexdigest()[:8]
        name = f"{slug(result.name)}-{digest}.json"
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
    kept = sorted(path for path in (folder / DEVICES).glob("*.json") if path.name[0] != ".")
    for path in (*filter(Path.is_file, written), *kept):
        try:
            found.append(read_result(path))
        except DfkdEdgeError as error:
            unread.append(error)
    return distinct(found), unread


def summaries(
    folder: Path, bundles: Sequence[Path]
) -> tuple[list[dict[str, object]], list[DfkdEdgeError]]:
    """Describe what devices said of these bundles or of others; and which results are damaged."""
    results, unread = kept_results(folder, bundles)
    known = {file_hash(bundle / MANIFEST) for bundle in bundles}
    return [result.summary(known) for result in results], unread


def distinct(results: Iterable[DeviceResult]) -> list[DeviceResult]:
    """Leave out what was read before, in other files of the same content."""
    found: dict[str, DeviceResult] = {}
    for result in results:
        found.setdefault(result.text, result)
    return list(found.values())
