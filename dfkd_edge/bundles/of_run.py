"""The bundles that lie in a run: finished, cut off or damaged ones."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dfkd_edge.files import file_hash
from dfkd_edge.runtime.bundle_files import may_be_bundle

BUNDLES = "bundles"


def bundles_of(run: Path) -> list[Path]:
    """List them by name; what works on one has hidden folders beside them, which are none."""
    folders = (run / BUNDLES).glob("*")
    return sorted(f for f in folders if f.name[0] != "." and may_be_bundle(f))


def holds_student_of(run: Path, provenance: Mapping[str, Any]) -> bool:
    """Whether a bundle was exported from the student that lies in a run now.

    Args:
        run: any; one without a student has no bundle of it.
        provenance: of the bundle; one that does not name its student is of another.
    """
    from dfkd_edge.artifacts import student_weights  # loads numpy, which a wrong path need not

    weights, named = student_weights(run / "student"), provenance.get("student_sha256")
    return named is not None and weights.is_file() and file_hash(weights) == named
