"""A bundle as files: what its manifest promises, and whether that is what lies there.

Names in a manifest come from outside, so they are text until `safe_path` has looked at them.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from dfkd_edge.runtime.confidence import Confidence, read_confidence
from dfkd_edge.runtime.faults import Fault, UsageFault
from dfkd_edge.runtime.mending import EXPORT_AGAIN, how_to_mend

if TYPE_CHECKING:
    from numpy.typing import NDArray

MARKER, FORMAT = "dfkd-edge bundle", 1
MANIFEST, CLASSES, PREPROCESS, GOLDEN = (
    "manifest.json",
    "classes.txt",
    "preprocess.json",
    "golden.npz",
)
VALIDATION = "validation.json"
"""The ladder and the gate of `export`."""
REPORT, DEVICE_RESULT, CHECK_RESULT, LABELLED_CHECK, BENCHMARK = (
    "report.html",
    "result.json",
    "check.json",
    "check.labelled.json",
    "benchmark.json",
)
"""Written into a finished bundle; no part of it, so the manifest does not hash them."""
DEVICES = "devices"
"""Folder of the results that devices sent, in a run, or in a bundle outside of one; not hashed."""
CHECK = "check.pyz"
MAX_TEXT_BYTES = 16 << 20
MAX_GOLDEN_BYTES = 1 << 30


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is whole or not there.

    Raises:
        OSError: the disk is full or not writable.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        if temporary.exists():
            temporary.unlink()


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        Fault: it is missing, too large or no JSON object.
    """
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise Fault("file is larger than any of ours", str(path), how_to_mend(path))
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise Fault("file is missing", str(path), how_to_mend(path)) from error
    except (OSError, ValueError, RecursionError) as error:
        raise Fault("file cannot be read as JSON", str(path), how_to_mend(path)) from error
    if not isinstance(document, dict):
        raise Fault("file holds no JSON object", str(path), how_to_mend(path))
    return document


def safe_path(folder: Path, name: object) -> Path:
    """Turn a name of the manifest into a path inside the bundle.

    Raises:
        Fault: the name is absolute, climbs out, is not plain, or leads over a symbolic link.
    """
    parts = PurePosixPath(name).parts if isinstance(name, str) else ()
    is_plain = (
        isinstance(name, str)
        and bool(parts)
        and "/".join(parts) == name
        and not name.startswith("/")
        and not any(p in (".", "..") for p in parts)
        and not any(c in name for c in "\\:\0\n\r")
    )
    if not is_plain:
        raise Fault(
            f"manifest names a file outside of the bundle: {name!r}",
            str(folder / MANIFEST),
            "do not use this bundle",
        )
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise Fault(
                "file is a symbolic link, a bundle holds plain files",
                str(path),
                how_to_mend(folder),
            )
    return path


@dataclass(frozen=True)
class Bundle:
    """A bundle whose manifest has been read."""

    folder: Path
    manifest: dict[str, Any]
    classes: tuple[str, ...]
    preprocess: dict[str, Any]
    """The contract of preprocess.json: how a picture becomes the model's input."""

    @property
    def precision(self) -> str:
        """The recommended one: `fp32`, `fp16` or `int8`."""
        return str(self.manifest["precision"])

    @property
    def precisions(self) -> tuple[str, ...]:
        """What the bundle can be run in."""
        return tuple(dict.fromkeys((*self.manifest["models"], self.precision)))

    @property
    def side_px(self) -> int:
        """Side of the square input."""
        return int(self.preprocess["input"]["width"])

    @property
    def batch(self) -> tuple[int, int, int]:
        """Smallest, usual and largest batch."""
        low, usual, high = self.preprocess["batch"]
        return int(low), int(usual), int(high)

    @property
    def confidence(self) -> Confidence:
        """Temperature and reject threshold of the recommended model."""
        return read_confidence(self.manifest, str(self.folder / MANIFEST))

    @property
    def full_range(self) -> bool:
        """Whether INT8 weights use all eight bits."""
        return bool(self.manifest.get("int8_full_range"))

    @property
    def use_dla(self) -> bool:
        """Whether the engine is for the DLA."""
        return bool(self.manifest.get("use_dla"))

    def model_path(self, precision: str) -> Path:
        """Return the graph of a precision; FP16 may lie in the FP32 graph, as a builder flag.

        Raises:
            UsageFault: the bundle holds no such model.
        """
        models = self.manifest["models"]
        name = models.get(precision)
        if name is None and precision == "fp16" == self.precision:
            name = models.get("fp32")
        if name is None:
            raise UsageFault(
                f"bundle holds no {precision} model",
                str(self.folder),
                f"it holds {', '.join(self.precisions)}",
            )
        return safe_path(self.folder, name)

    def golden(self) -> dict[str, NDArray[Any]]:
        """Read the golden images and logits.

        Raises:
            Fault: golden.npz is damaged or does not fit the classes.
        """
        return read_golden(self.folder / GOLDEN, self.side_px, len(self.classes))

    @property
    def sha256(self) -> str:
        """Hash of the manifest, which holds the hash of everything else."""
        return file_sha256(self.folder / MANIFEST)


def read_golden(path: Path, side_px: int, num_classes: int) -> dict[str, NDArray[Any]]:
    """Read golden.npz without ever unpickling.

    Raises:
        Fault: it is damaged, or its shapes do not fit.
    """
    import numpy as np  # a wrong path is told of without it

    try:
        with zipfile.ZipFile(str(path)) as archive:
            size = sum(info.file_size for info in archive.infolist())
        if size > MAX_GOLDEN_BYTES:
            raise Fault("file is larger than any of ours", str(path), how_to_mend(path))
        with np.load(str(path), allow_pickle=False) as arrays:
            golden = {key: arrays[key] for key in arrays.files}
        images = golden["images"]
        fits = images.dtype == np.uint8 and images.shape[1:] == (side_px, side_px, 3)
        for key in (k for k in golden if k.endswith("_logits")):
            fits = fits and golden[key].shape == (len(images), num_classes)
        if not fits or not len(images):
            raise Fault("golden images do not fit the contract", str(path), how_to_mend(path))
    except FileNotFoundError as error:
        raise Fault("file is missing", str(path), how_to_mend(path)) from error
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise Fault("golden images cannot be read", str(path), how_to_mend(path)) from error
    return golden


def read_bundle(folder: Path) -> Bundle:
    """Read the manifest, the classes and the contract; verifies nothing but their form.

    Raises:
        UsageFault: the folder holds no bundle.
        Fault: a file is damaged, or the manifest names a file outside.
    """
    manifest = read_manifest(folder)
    for name in manifest["files"]:
        safe_path(folder, name)
    preprocess = read_json(folder / PREPROCESS)
    try:
        good = (
            int(preprocess["input"]["width"]) == int(preprocess["input"]["height"]) > 0
            and len(preprocess["batch"]) == 3
            and 1 <= preprocess["batch"][0] <= preprocess["batch"][1] <= preprocess["batch"][2]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Fault(
            "contract is not whole", str(folder / PREPROCESS), how_to_mend(folder)
        ) from error
    if not good:
        raise Fault("contract is not whole", str(folder / PREPROCESS), how_to_mend(folder))
    read_confidence(manifest, str(folder / MANIFEST))
    return Bundle(folder, manifest, tuple(manifest["classes"]), preprocess)


def may_be_bundle(folder: Path) -> bool:
    """Whether a folder holds what only a bundle, or a run, has; a damaged one too."""
    return (folder / MANIFEST).is_file() or was_bundle(folder)


def was_bundle(folder: Path) -> bool:
    """Whether a folder is a bundle, even if its manifest is missing or damaged."""
    return (folder / CHECK).is_file()


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a bundle.

    Raises:
        UsageFault: the folder holds no bundle.
        Fault: the manifest is damaged or of another format.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        what = "is a file, not a bundle" if folder.exists() else "no such folder"
        raise UsageFault(what, str(folder), "name the folder of a bundle")
    if not may_be_bundle(folder):
        raise UsageFault("folder holds no bundle", str(folder), "run dfkd-edge export first")
    manifest = read_json(path)
    if manifest.get("marker") != MARKER:
        raise UsageFault("folder holds no bundle", str(folder), "run dfkd-edge export first")
    if manifest.get("status") == "incomplete":
        raise Fault("bundle was never finished", str(folder), EXPORT_AGAIN)
    if manifest.get("format") != FORMAT:
        raise Fault(
            f"bundle has format {manifest.get('format')!r}, this program reads {FORMAT}",
            str(path),
            "use the check.pyz of the bundle itself",
        )
    if not _is_whole(manifest):
        raise Fault("manifest is not whole", str(path), how_to_mend(path))
    return manifest


def _is_whole(manifest: dict[str, Any]) -> bool:
    files, models, classes = (manifest.get(key) for key in ("files", "models", "classes"))
    return (
        isinstance(files, dict)
        and isinstance(models, dict)
        and bool(models)
        and all(isinstance(entry, dict) and "sha256" in entry for entry in files.values())
        and all(name in files for name in models.values())
        and {CLASSES, PREPROCESS, GOLDEN} <= set(files)
        and isinstance(classes, list)
        and all(isinstance(name, str) for name in classes)
        and isinstance(manifest.get("precision"), str)
        and isinstance(manifest.get("tolerance"), dict)
    )


def damaged_files(folder: Path, manifest: dict[str, Any]) -> list[Fault]:
    """Compare every file with the manifest; one fault a file that differs."""
    owners = {entry["sha256"]: name for name, entry in manifest["files"].items()}
    faults = []
    for name, entry in manifest["files"].items():
        try:
            fault = _damage(safe_path(folder, name), name, entry, owners)
        except Fault as error:
            fault = error
        if fault:
            faults.append(fault)
    return faults


def _damage(path: Path, name: str, entry: dict[str, Any], owners: dict[str, str]) -> Fault | None:
    if not path.is_file():
        return Fault("file of the bundle is missing", str(path), how_to_mend(path))
    try:
        size, found = path.stat().st_size, file_sha256(path)
    except OSError as error:
        return Fault(f"file cannot be read: {error.strerror}", str(path), how_to_mend(path))
    if found == entry["sha256"]:
        return None
    owner = owners.get(found)
    if owner:
        return Fault(f"file holds the content of {owner}", str(path), how_to_mend(path))
    expected = entry.get("bytes")
    is_other_size = isinstance(expected, int) and size != expected
    differs = f"{size:,} bytes, not {expected:,}" if is_other_size else "other content"
    return Fault(f"file differs from the manifest: {differs}", str(path), how_to_mend(path))
