"""A bundle as files: what its manifest promises, and whether that is what lies there.

Names in a manifest come from outside, so they are text until `safe_path` has looked at them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from dfkd_edge.runtime.confidence import Confidence, read_confidence
from dfkd_edge.runtime.faults import EXPORT_AGAIN, Fault, UsageFault, damage, repair_hint

if TYPE_CHECKING:
    from numpy.typing import NDArray

MARKER, FORMAT = "dfkd-edge bundle", 1  # A reader refuses any other format
MANIFEST = "manifest.json"
CLASSES, PREPROCESS, GOLDEN = "classes.txt", "preprocess.json", "golden.npz"
CHECK = "check.pyz"
VALIDATION = "validation.json"  # The ladder and the gate of `export`
REPORT, DEVICE_RESULT, BENCHMARK = "report.html", "result.json", "benchmark.json"
CHECK_RESULT, LABELLED_CHECK = "check.json", "check.labelled.json"
"""These five are written into a finished bundle and are no part of it: the manifest has no hash."""
DEVICES = "devices"  # Folder of what devices sent, in a run, or a bundle outside of one; not hashed
# types of what a manifest must hold
MANIFEST_KINDS = {
    **dict.fromkeys(("version", "target", "backend", "machine", "precision", "status"), str),
    **dict.fromkeys(("int8_full_range", "use_dla"), bool),
    **dict.fromkeys(("models", "model_notes", "tolerance", "provenance", "files"), dict),
    "classes": list,
}
MAX_TEXT_BYTES = 16 << 20  # Of a JSON file: a hostile one must not fill a device's memory


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):  # file_digest is of Python 3.11
            digest.update(block)
    return digest.hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is whole or not there.

    Raises:
        OSError: the disk is full or not writable.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # no rename across disks
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())  # else a power cut may keep the new name of an empty file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        Fault: it is missing, too large or no JSON object.
    """
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise damage("file is larger than any of ours", path)
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise damage("file is missing", path) from error
    except (OSError, ValueError, RecursionError) as error:  # the last one: nested too deeply
        raise damage("file cannot be read as JSON", path) from error
    if not isinstance(document, dict):
        raise damage("file holds no JSON object", path)
    return document


def safe_path(folder: Path, name: object) -> Path:
    """Turn a name of the manifest into a path inside the bundle.

    Raises:
        Fault: the name is absolute, climbs out, is not plain, or leads over a symbolic link.
    """
    parts = PurePosixPath(name).parts if isinstance(name, str) else ()
    is_plain = (
        isinstance(name, str)
        and "/".join(parts) == name != ""
        and not name.startswith("/")
        and ".." not in parts
        and not any(c in name for c in "\\:\0\n\r")  # `\\` and `:` lead elsewhere on Windows
    )
    if not is_plain:
        what = f"manifest names a file outside of the bundle: {name!r}"
        raise Fault(what, str(folder / MANIFEST), "do not use this bundle")
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():  # it may lead out of the bundle, and nothing copies it as a file
            what = "file is a symbolic link, a bundle holds plain files"
            raise Fault(what, str(path), repair_hint(folder))
    return path


class FileEntry(NamedTuple):
    """What the manifest promises of a file."""

    sha256: str  # In hex
    bytes: int  # Its size


@dataclass(frozen=True)
class Manifest:
    """manifest.json, as `export` writes it; every key is required."""

    version: str  # Of the program that exported the bundle
    target: str  # Name of the target profile
    backend: str  # Runtime of the target: `tensorrt` or `onnxruntime`
    machine: str  # Processor architecture of the target, as Linux spells it
    precision: str  # The recommended one: `fp32`, `fp16` or `int8`
    status: str  # What the gate said on the host: `passed` or `failed`
    int8_full_range: bool  # Whether INT8 weights use all eight bits
    use_dla: bool  # Whether the engine is for the DLA
    classes: tuple[str, ...]  # Class names, in the order of the logits
    models: dict[str, str]  # Precision -> file of its graph
    model_notes: dict[str, dict[str, Any]]  # Precision -> what the conversion noted of its graph
    confidence: dict[str, Any] | None
    """What `export` fitted, see `read_confidence`; None where it fitted nothing."""
    tolerance: dict[str, dict[str, float]]
    """Precision -> how far the device's logits may be, as golden.TOLERANCE."""
    provenance: dict[str, Any]
    """Run, teacher, settings, seed: JSON of the host, which the device does not read."""
    files: dict[str, FileEntry]  # Name -> what it must be


@dataclass(frozen=True)
class Bundle:
    """A bundle whose manifest and contract have been read."""

    folder: Path
    manifest: Manifest
    side_px: int  # Side of the square input
    batch: tuple[int, int, int]  # Smallest, usual and largest batch
    input_dtype: str = "uint8"  # Or `float32` of 0 to 255, before TensorRT 8.5

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self.manifest.classes

    @property
    def precision(self) -> str:
        """The recommended one: `fp32`, `fp16` or `int8`."""
        return self.manifest.precision

    @property
    def precisions(self) -> tuple[str, ...]:
        """What the bundle can be run in."""
        return tuple(dict.fromkeys((*self.manifest.models, self.precision)))

    @property
    def confidence(self) -> Confidence:
        """Temperature and reject threshold of the recommended model."""
        return read_confidence(self.manifest.confidence, self.folder / MANIFEST)

    @property
    def sha256(self) -> str:
        """Hash of the manifest, which holds the hash of everything else."""
        return file_sha256(self.folder / MANIFEST)

    def model_path(self, precision: str) -> Path:
        """Return the graph of a precision.

        Raises:
            UsageFault: the bundle holds no such model.
        """
        models = self.manifest.models
        is_flag = precision == "fp16" == self.precision  # of TensorRT up to 10, on the FP32 graph
        name = models.get(precision) or (models.get("fp32") if is_flag else None)
        if name is None:
            held = f"it holds {', '.join(self.precisions)}"
            raise UsageFault(f"bundle holds no {precision} model", str(self.folder), held)
        return safe_path(self.folder, name)

    def golden(self) -> dict[str, NDArray[Any]]:
        """Read the golden images and logits.

        Raises:
            Fault: golden.npz is damaged or does not fit the classes.
        """
        from dfkd_edge.runtime.golden import read_golden  # numpy: a wrong path is told of without

        return read_golden(self.folder / GOLDEN, self.side_px, len(self.classes))


def read_bundle(folder: Path) -> Bundle:
    """Read the manifest and the contract; verifies nothing but their form.

    Raises:
        UsageFault: the folder holds no bundle.
        Fault: a file is damaged, or the manifest names a file outside.
    """
    manifest = read_manifest(folder)
    for name in manifest.files:
        safe_path(folder, name)
    read_confidence(manifest.confidence, folder / MANIFEST)
    contract = read_json(folder / PREPROCESS)
    try:
        side_px, height_px = int(contract["input"]["width"]), int(contract["input"]["height"])
        low, usual, high = map(int, contract["batch"])
        dtype = str(contract["input"]["dtype"])
        if not (side_px == height_px > 0 and 1 <= low <= usual <= high):  # students are square
            raise ValueError(contract)
    except (KeyError, TypeError, ValueError) as error:
        raise damage("contract is not whole", folder / PREPROCESS) from error
    return Bundle(folder, manifest, side_px, (low, usual, high), dtype)


def may_be_bundle(folder: Path) -> bool:
    """Whether a folder is a bundle or a run, if perhaps a damaged one."""
    return (folder / MANIFEST).is_file() or was_bundle(folder)


def was_bundle(folder: Path) -> bool:
    """Whether a folder is a bundle, even if its manifest is missing or damaged."""
    return (folder / CHECK).is_file()


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a bundle.

    Raises:
        UsageFault: the folder holds no bundle.
        Fault: the manifest is damaged or of another format.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        what = "is a file, not a bundle" if folder.exists() else "no such folder"
        raise UsageFault(what, str(folder), "name the folder of a bundle")
    document = read_json(path) if may_be_bundle(folder) else {}
    if document.get("marker") != MARKER:
        raise UsageFault("folder holds no bundle", str(folder), "run dfkd-edge export first")
    if document.get("status") == "incomplete":  # the real manifest is written last
        raise Fault("bundle was never finished", str(folder), EXPORT_AGAIN)
    if document.get("format") != FORMAT:
        what = f"bundle has format {document.get('format')!r}, this program reads {FORMAT}"
        raise Fault(what, str(path), "use the check.pyz of the bundle itself")
    if not _is_whole(document):
        raise damage("manifest is not whole", path)
    files = {name: FileEntry(e["sha256"], e["bytes"]) for name, e in document["files"].items()}
    values = {key: document[key] for key in MANIFEST_KINDS}
    values.update(files=files, classes=tuple(document["classes"]))
    return Manifest(**values, confidence=document.get("confidence"))


def _is_whole(document: dict[str, Any]) -> bool:
    """Whether a manifest holds what `export` writes: the one place that checks its keys."""
    limits = {"relative": float, "agreement": float}
    return (
        _holds(document, MANIFEST_KINDS)
        and all(isinstance(name, str) for name in document["classes"])
        and all(_holds(e, {"sha256": str, "bytes": int}) for e in document["files"].values())
        and all(_holds(entry, limits) for entry in document["tolerance"].values())
        and bool(document["models"])
        and {CLASSES, PREPROCESS, GOLDEN, *map(str, document["models"].values())}
        <= set(document["files"])
    )


def _holds(value: object, kinds: Mapping[str, type]) -> bool:
    """Whether a value is a JSON object with values of these types."""
    return isinstance(value, dict) and all(
        isinstance(value.get(key), kind) for key, kind in kinds.items()
    )


def damaged_files(folder: Path, manifest: Manifest) -> list[Fault]:
    """Compare every file with the manifest; one fault a file that differs."""
    owners = {entry.sha256: name for name, entry in manifest.files.items()}
    faults = []
    for name, entry in manifest.files.items():
        try:
            path = safe_path(folder, name)
            what = _difference(path, entry, owners)
        except Fault as fault:
            faults.append(fault)
        else:
            faults += [damage(what, path)] if what else []
    return faults


def _difference(path: Path, entry: FileEntry, owners: dict[str, str]) -> str:
    if not path.is_file():
        return "file of the bundle is missing"
    try:
        size, sha256 = path.stat().st_size, file_sha256(path)
    except OSError as error:
        return f"file cannot be read: {error.strerror}"
    if sha256 == entry.sha256:
        return ""
    if sha256 in owners:  # two files were swapped, or one copied over
        return f"file holds the content of {owners[sha256]}"
    differs = f"{size:,} bytes, not {entry.bytes:,}" if size != entry.bytes else "other content"
    return f"file differs from the manifest: {differs}"
