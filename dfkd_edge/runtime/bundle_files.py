"""A bundle as files: what its manifest promises, and whether that is what lies there.

Names in a manifest come from outside, so they are text until `safe_path` has looked at them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from dfkd_edge.runtime.bundle_manifest import (
    MAX_FILES_BYTES,
    FileEntry,
    Manifest,
    parse_manifest,
)
from dfkd_edge.runtime.confidence import Confidence, read_confidence
from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.documents import read_json, read_raw
from dfkd_edge.runtime.faults import MANIFEST as MANIFEST
from dfkd_edge.runtime.faults import Fault, UsageFault, damage, repair_hint
from dfkd_edge.runtime.graph_guard import read_outline
from dfkd_edge.runtime.plain_text import hidden_character
from dfkd_edge.runtime.safe_files import file_sha256

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLASSES, PREPROCESS, GOLDEN = "classes.txt", "preprocess.json", "golden.npz"
STUDENT = "student/student.json"
CHECK = "check.pyz"
RUNTIMES = "runtimes"  # A folder for each runtime that the bundle was made for
VALIDATION = "validation.json"  # The ladder and the gate of `export`
REPORT, DEVICE_RESULT, BENCHMARK = "report.html", "result.json", "benchmark.json"
CHECK_RESULT, LABELLED_CHECK = "check.json", "check.labelled.json"
"""These five are written into a finished bundle and are no part of it: the manifest has no hash."""
SIGNATURE = "model.sig"  # OpenSSF model signing's name; it covers the manifest, no hash covers it
SBOM = "sbom.cdx.json"  # What the bundle was made with; `*.cdx.json` is CycloneDX's name
EDIT_A_COPY = "edit a copy of the bundle and leave this one sealed"
DEVICES = "devices"  # Folder of what devices sent, in a run, or a bundle outside of one; not hashed
DTYPES = ("uint8", "float32")  # Of the input: bytes, or the same numbers before TensorRT 8.5
MAX_NAME, MAX_PART_BYTES = 1_000, 255  # Of a path: systems raise errors at longer ones
MAX_SIDE_PX = 4_096  # Of a contract, and its largest batch: more would fill a device's memory


def is_plain(name: object) -> bool:
    """Whether a text is a path that stays below the folder that it is read in."""
    parts = PurePosixPath(name).parts if isinstance(name, str) else ()
    return (
        isinstance(name, str)
        and "/".join(parts) == name != ""
        and not name.startswith("/")
        and ".." not in parts
        and not any(c in name for c in "\\:")  # they lead elsewhere on Windows
        and len(name) <= MAX_NAME
        and all(len(part.encode("utf-8", "surrogatepass")) <= MAX_PART_BYTES for part in parts)
        and not hidden_character(name)
    )


def safe_path(folder: Path, name: object) -> Path:
    """Turn a name of the manifest into a path inside the bundle.

    Raises:
        Fault: the name is absolute, climbs out, is not plain, or leads over a symbolic link.
    """
    if not is_plain(name):
        what = f"manifest names a file outside of the bundle: {name!r}"
        raise Fault(what, str(folder / MANIFEST), "do not use this bundle")
    path = folder
    for part in PurePosixPath(str(name)).parts:
        path = path / part
        if path.is_symlink():  # it may lead out of the bundle, and nothing copies it as a file
            what = "file is a symbolic link, a bundle holds plain files"
            raise Fault(what, str(path), repair_hint(folder))
    return path


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
        """Return the graph of a precision, once it is known to be a plain classifier.

        Raises:
            UsageFault: the bundle holds no such model.
            Fault: the graph may not end, reads other files, has other classes, or takes other
                pictures than the contract says.
        """
        models = self.manifest.models
        is_flag = precision == "fp16" == self.precision  # of TensorRT up to 10, on the FP32 graph
        name = models.get(precision) or (models.get("fp32") if is_flag else None)
        if name is None:
            held = f"it holds {', '.join(self.precisions)}"
            raise UsageFault(f"bundle holds no {precision} model", str(self.folder), held)
        path = safe_path(self.folder, name)
        outline = read_outline(path)
        num_logits = (0, *outline.outputs.get("logits", ()))[-1]
        if num_logits != len(self.classes):
            num = counted(num_logits, "logit")
            raise damage(f"graph answers with {num} to {len(self.classes)} classes", path)
        shape = outline.inputs.get("image", ())
        if shape[1:] != (self.side_px, self.side_px, 3) or shape[0] not in (0, *self.batch):
            raise damage("graph takes other pictures than the contract says", path)
        return path

    def golden(self) -> dict[str, NDArray[Any]]:
        """Read the golden images and logits.

        Raises:
            Fault: golden.npz is damaged or does not fit the classes.
        """
        from dfkd_edge.runtime.golden import read_golden  # numpy: a wrong path is told of without

        return read_golden(self.folder / GOLDEN, self.side_px, len(self.classes))


def read_bundle(folder: Path) -> Bundle:
    """Read the manifest and the contract; verifies no hash but the manifest's own.

    Raises:
        UsageFault: the folder holds no bundle.
        Fault: a file is damaged, or the manifest names a file outside.
    """
    manifest = read_manifest(folder)
    for name in (CLASSES, PREPROCESS, GOLDEN):
        if name not in manifest.files:
            raise damage(f"manifest does not list {name}", folder / MANIFEST)
    for name in manifest.files:
        safe_path(folder, name)
    side_px, batch, dtype = _read_contract(folder / PREPROCESS)
    return Bundle(folder, manifest, side_px, batch, dtype)


def classes_text(names: Sequence[str]) -> str:
    """Write classes.txt."""
    return "".join(f"{name}\n" for name in names)


def _read_contract(path: Path) -> tuple[int, tuple[int, int, int], str]:
    """Read the side of the input, in pixels, the batches, and the type of the input."""
    contract = read_json(path)
    feed, batch = contract.get("input"), contract.get("batch")
    sides = [feed.get("width"), feed.get("height")] if isinstance(feed, dict) else []
    sizes = batch if isinstance(batch, list) else []
    dtype = feed.get("dtype") if isinstance(feed, dict) else None
    numbers = [n for n in (*sides, *sizes) if type(n) is int and 1 <= n <= MAX_SIDE_PX]
    is_whole = dtype in DTYPES and len(sizes) == 3 and len(numbers) == 5
    if not is_whole or sides[0] != sides[1] or sizes != sorted(sizes):
        raise damage("contract is not whole", path)  # students are square
    side_px, _, low, usual, high = numbers
    return side_px, (low, usual, high), str(dtype)


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
        Fault: the manifest is damaged, changed or of another format.
    """
    if not folder.is_dir():
        what = "is a file, not a bundle" if folder.exists() else "no such folder"
        raise UsageFault(what, str(folder), "name the folder of a bundle")
    if not may_be_bundle(folder):
        raise UsageFault("folder holds no bundle", str(folder), "run dfkd-edge export first")
    return parse_manifest(folder / MANIFEST)


def damaged_files(folder: Path, manifest: Manifest) -> list[Fault]:
    """Compare every file with the manifest; one fault a file that differs."""
    owners = {entry.sha256: name for name, entry in manifest.files.items()}
    faults = []
    for name, entry in manifest.files.items():
        try:
            path = safe_path(folder, name)
            what = _difference(path, entry, owners) or _of_other_classes(path, name, manifest)
        except Fault as fault:
            faults.append(fault)
        else:
            if what and name.startswith(f"{RUNTIMES}/"):  # configurations, which people edit
                hint = f"edited? {EDIT_A_COPY}; else {repair_hint(path)}"
                faults.append(Fault(what, str(path), hint))
            elif what:
                faults.append(damage(what, path))
    return faults


def _of_other_classes(path: Path, name: str, manifest: Manifest) -> str:
    """Say that a file names other classes than the manifest, or in another order; else nothing."""
    text = classes_text(manifest.classes).encode("utf-8")
    if name == CLASSES and read_raw(path) != text:
        return "class list is not that of the manifest"
    if name == STUDENT and read_json(path).get("classes") != list(manifest.classes):
        return "classes of the student are not those of the manifest, in its order"
    return ""


def _difference(path: Path, entry: FileEntry, owners: dict[str, str]) -> str:
    if not path.is_file():
        return "file of the bundle is missing"
    try:
        size = path.stat().st_size
        # a sparse file of terabytes is soon made, and would be read for hours
        sha256 = file_sha256(path) if size <= MAX_FILES_BYTES else ""
    except OSError as error:
        return f"file cannot be read: {error.strerror}"
    if sha256 == entry.sha256:
        return ""
    if sha256 in owners:  # two files were swapped, or one copied over
        return f"file holds the content of {owners[sha256]}"
    differs = f"{size:,} bytes, not {entry.bytes:,}" if size != entry.bytes else "other content"
    return f"file differs from the manifest: {differs}"
