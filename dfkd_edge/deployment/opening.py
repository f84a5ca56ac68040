"""Finding and opening a bundle; what a wrong path costs is what this module loads."""

from __future__ import annotations

from pathlib import Path

from dfkd_edge.errors import UsageError
from dfkd_edge.runtime import bundle_files
from dfkd_edge.runtime.bundle_files import MANIFEST, Bundle
from dfkd_edge.runtime_faults import faults_as_errors


def open_bundle(folder: Path, verify: bool = True) -> Bundle:
    """Open a bundle.

    Args:
        folder: the bundle.
        verify: compare every file with its hash.

    Raises:
        UsageError: the folder holds no bundle.
        ArtifactError: a file is missing, cut short, changed or swapped, or the manifest names
            a file outside of the folder.
    """
    with faults_as_errors():
        bundle = bundle_files.read_bundle(folder)
        for fault in bundle_files.damaged_files(folder, bundle.manifest) if verify else ():
            raise fault
    return bundle


def find_bundle(path: Path) -> Path:
    """Take a bundle as it is, or the only bundle of a run.

    Raises:
        UsageError: the run holds none or several.
    """
    bundles = path / "bundles"
    if not bundles.is_dir():
        return path
    found = sorted(child for child in bundles.iterdir() if (child / MANIFEST).is_file())
    if len(found) != 1:
        names = ", ".join(child.name for child in found) or "none"
        raise UsageError(
            f"run holds {len(found)} bundles, name one: {names}",
            where=str(bundles),
            hint="dfkd-edge export makes one",
        )
    return found[0]


def held_precision(bundle: Bundle, precision: str) -> str:
    """Return a precision that a bundle holds a model of.

    Raises:
        UsageError: it holds none.
    """
    if precision not in bundle.precisions:
        raise UsageError(
            f"bundle holds no {precision} model",
            where="--precision",
            hint=f"it holds {', '.join(bundle.precisions)}",
        )
    return precision
