"""The bundle: a self-contained folder that a device can trust, written whole.

Shape suffixes: K classes, D embedding width.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dfkd_edge.artifacts import Floats, ModelFile, StudentArtifact, save_tensors
from dfkd_edge.bundles.opening import open_bundle
from dfkd_edge.bundles.parts import GoldenSet, card_png, check_archive, golden_bytes
from dfkd_edge.bundles.scratch import swapped_in, undo_swap
from dfkd_edge.errors import EnvironmentLackingError, RunDirError
from dfkd_edge.files import atomic_write, file_hash
from dfkd_edge.results.kept import CHECKS
from dfkd_edge.runtime import bundle_files, preprocess
from dfkd_edge.runtime.bundle_files import CHECK, MANIFEST, Bundle
from dfkd_edge.runtime.bundle_manifest import FORMAT, INCOMPLETE, MARKER, sealed
from dfkd_edge.runtime.documents import read_json
from dfkd_edge.runtime.faults import Fault
from dfkd_edge.runtime.golden import TOLERANCE
from dfkd_edge.runtime.safe_files import remove_leftovers, replacing
from dfkd_edge.target_profiles.profile import Precision, TargetProfile
from dfkd_edge.version import __version__

CARD = "README.md"
OTHER = "choose another --output"
REPLACEABLE = (None, INCOMPLETE, "damaged")  # Nobody can use these: replaced without asking
MODEL_NAMES = frozenset(f"model.{precision}.onnx" for precision in ("fp32", "fp16", "int8"))
OWN_NAMES = MODEL_NAMES | frozenset(
    {
        *(MANIFEST, bundle_files.CLASSES, bundle_files.PREPROCESS, bundle_files.GOLDEN, CHECK),
        *("test_card.png", "text_head.safetensors", "calibration.json", bundle_files.VALIDATION),
        *("recipe.md", "build.sh", "LICENSES.txt", "student", CARD, bundle_files.DEVICES),
        *(bundle_files.REPORT, bundle_files.DEVICE_RESULT, bundle_files.BENCHMARK),
        *(bundle_files.CHECK_RESULT, bundle_files.LABELLED_CHECK, CHECKS, bundle_files.RUNTIMES),
        *(bundle_files.SIGNATURE, bundle_files.SBOM),
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class BundleContents:
    """All that goes into a bundle."""

    target: TargetProfile  # What the bundle is for
    precision: Precision
    """The recommended one; `fp16` without a graph of its own is a flag on the FP32 graph."""
    models: Mapping[Precision, ModelFile]
    """The graphs; `fp32` is always there. They may lie in the bundle's folder already."""
    class_names: tuple[str, ...]  # In the order of the logits
    student: StudentArtifact  # Weights and settings, copied into `student/`
    text_head: Floats  # [D, K], unit columns, without the scale: what a swap of classes replaces
    golden: GoldenSet  # Golden images and logits
    batch: tuple[int, ...] = (1,)
    """As in ExportConfig: one number is static, several are smallest, usual, largest."""
    calibration: Mapping[str, Any] | None = None  # Summary of the calibration, calibration.json
    validation: Mapping[str, Any] | None = None  # The conversion ladder, validation.json
    recipe: str = ""  # How to build the engine by hand, recipe.md
    build_script: str = ""  # trtexec in a shell script, build.sh; empty for CPU targets
    card: str = ""  # The model card, README.md
    licenses: str = ""  # Licences of everything inside, LICENSES.txt
    sbom: Mapping[str, Any] | None = None  # What it was made with, sbom.cdx.json
    runtimes: Mapping[str, Path] = field(default_factory=dict)
    """Files for runtimes, by their names in the bundle: `runtimes/triton/README.md`."""
    confidence: Mapping[str, Any] | None = None
    """Temperature, reject threshold and how they were found; validation.confidence."""
    status: Literal["passed", "failed"] = "passed"  # What the gate said
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Run, teacher, seeds, hashes: where it all comes from."""
    tolerance: Mapping[str, Mapping[str, float]] = field(default_factory=lambda: dict(TOLERANCE))
    """By precision, how far the device's logits may be: `relative`, `agreement`."""


def write_bundle(folder: Path, contents: BundleContents) -> Bundle:
    """Write a bundle; its manifest comes last, so that what a kill leaves is no bundle yet.

    Args:
        folder: the bundle itself. A finished bundle there is replaced once the new one is whole;
            its `devices/` and hidden files stay.
        contents: what goes into it.

    Raises:
        RunDirError: the folder holds files that are no bundle's.
        EnvironmentLackingError: the disk is full or not writable.
    """
    refuse_foreign(folder)
    try:
        undo_swap(folder)
        remove_leftovers(folder)
        if status_of(folder) in (None, INCOMPLETE):
            _fill(folder, contents)
        else:
            with swapped_in(folder) as fresh:
                _fill(fresh, contents)
                # what users version or devices sent is theirs
                for kept in (*folder.glob(".*"), *folder.glob(bundle_files.DEVICES)):
                    _copy_of_user(kept, fresh / kept.name)
    except OSError as error:
        what, hint = f"cannot write: {error.strerror}", "free some space, run again"
        raise EnvironmentLackingError(what, where=str(folder), hint=hint) from error
    return open_bundle(folder, verify=False)  # what was just written need not be hashed again


def _fill(folder: Path, contents: BundleContents) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / MANIFEST, _json({"marker": MARKER, "status": INCOMPLETE}))
    models = {precision: f"model.{precision}.onnx" for precision in contents.models}
    copied = {name: contents.models[precision].path for precision, name in models.items()}
    for path in (contents.student.weights, contents.student.folder / "student.json"):
        copied[f"student/{path.name}"] = path
    for name in (bundle_files.RUNTIMES, CHECKS):
        shutil.rmtree(folder / name, ignore_errors=True)  # of an unfinished bundle
    copied |= contents.runtimes
    for name, path in copied.items():
        _copy(path, folder / name)
    names = sorted({*copied, *_write_files(folder, contents)})
    folders = {"student", bundle_files.DEVICES, bundle_files.RUNTIMES, CHECKS}
    for name in OWN_NAMES - {*names, *folders, MANIFEST}:
        (folder / name).unlink(missing_ok=True)  # of an unfinished bundle
    files = {
        name: {"sha256": file_hash(folder / name), "bytes": (folder / name).stat().st_size}
        for name in names
    }
    atomic_write(folder / MANIFEST, sealed({**_manifest(contents, models), "files": files}))


def _manifest(contents: BundleContents, models: Mapping[Precision, str]) -> dict[str, Any]:
    spec = contents.target.quantization
    return {
        "marker": MARKER,
        "format": FORMAT,
        "version": __version__,
        "target": contents.target.name,
        "backend": contents.target.backend,
        "machine": contents.target.machine,
        "precision": contents.precision,
        "status": contents.status,
        "int8_full_range": spec is not None and not spec.reduce_range,
        "use_dla": contents.target.use_dla,
        "classes": list(contents.class_names),
        "models": dict(models),
        "model_notes": {precision: m.notes for precision, m in contents.models.items()},
        "confidence": dict(contents.confidence) if contents.confidence else None,
        "tolerance": {name: dict(limits) for name, limits in contents.tolerance.items()},
        "provenance": dict(contents.provenance),
    }


def refuse_foreign(folder: Path) -> None:
    """Only a folder of ours is written into; models may lie there before the bundle does.

    Raises:
        RunDirError: it is a file, or holds files that are no bundle's.
    """
    if folder.exists() and not folder.is_dir():
        raise RunDirError("is a file", where=str(folder), hint=OTHER)
    allowed = OWN_NAMES if status_of(folder) else MODEL_NAMES
    for child in sorted(folder.iterdir()) if folder.exists() else ():
        if child.name in OWN_NAMES and child.is_symlink():
            raise RunDirError("is a link, a bundle holds plain files", where=str(child), hint=OTHER)
        if child.name not in allowed and not child.name.startswith("."):
            what = f"folder holds what is no bundle's: {child.name}"
            raise RunDirError(what, where=str(folder), hint=OTHER)


def status_of(folder: Path) -> str | None:
    """What a bundle's manifest says of it, `damaged` if it is not whole; None for no bundle.

    Raises:
        EnvironmentLackingError: it is there and the machine does not give it out: it may be good.
    """
    try:
        manifest = read_json(folder / MANIFEST)
    except Fault as fault:
        cause = fault.__cause__  # of `read_json`: what the system or the parser said
        if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError):
            what, hint = f"cannot be read: {cause.strerror}", f"repair that, or {OTHER}"
            raise EnvironmentLackingError(what, where=fault.where, hint=hint) from fault
        return "damaged" if bundle_files.was_bundle(folder) else None
    if manifest.get("marker") != MARKER:
        return None
    status, is_other_format = manifest.get("status"), manifest.get("format") != FORMAT
    if status == INCOMPLETE or is_other_format:  # of an earlier version: its owner may need it
        return str(status or "damaged")
    try:
        return bundle_files.read_manifest(folder).status
    except Fault:
        return "damaged"


def _copy(source: Path, target: Path) -> None:
    if source.resolve() == target.resolve():
        return  # a graph that was exported right into the bundle
    with source.open("rb") as read, replacing(target) as written:
        shutil.copyfileobj(read, written, 1 << 20)


def _copy_of_user(source: Path, target: Path) -> None:
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target, follow_symlinks=False)


def _write_files(folder: Path, contents: BundleContents) -> list[str]:
    """Write all but models, student and manifest; returns their names."""
    side_px = contents.golden.images.shape[1]
    texts: dict[str, str | bytes] = {
        bundle_files.CLASSES: bundle_files.classes_text(contents.class_names),
        bundle_files.PREPROCESS: _json(
            preprocess.contract(
                side_px, preprocess.min_usual_max(contents.batch), contents.target.graph_input
            )
        ),
        bundle_files.GOLDEN: golden_bytes(contents.golden, side_px),
        "test_card.png": card_png(side_px),
        "LICENSES.txt": contents.licenses,
        "recipe.md": contents.recipe,
        CHECK: check_archive(),
    }
    optional = {"build.sh": contents.build_script, CARD: contents.card}
    documents = {
        "calibration.json": contents.calibration,
        bundle_files.VALIDATION: contents.validation,
        bundle_files.SBOM: contents.sbom,
    }
    optional |= {name: _json(d) for name, d in documents.items() if d is not None}
    texts |= {name: text for name, text in optional.items() if text}
    for name, text in texts.items():
        atomic_write(folder / name, text)
    save_tensors(folder / "text_head.safetensors", {"text_head": contents.text_head})
    return [*texts, "text_head.safetensors"]


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
