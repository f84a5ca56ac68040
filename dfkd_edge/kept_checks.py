"""What `check` leaves in a bundle: its last result on labelled pictures, and its last without.

One tells of accuracy, the other of every view that `export` showed: neither replaces the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dfkd_edge.certainty import measure_of
from dfkd_edge.run_dir import file_hash
from dfkd_edge.runtime.bundle_files import CHECK_RESULT, LABELLED_CHECK, MANIFEST


def check_file(document: Mapping[str, Any]) -> str:
    """Name the file in the bundle that keeps the result of a check."""
    return LABELLED_CHECK if measure_of(document) == "top1" else CHECK_RESULT


def kept_checks(
    folder: Path, read: Callable[[Path], dict[str, Any] | None]
) -> tuple[dict[str, Any], ...]:
    """Read the checks of a bundle as it is now, the labelled one first.

    One that names another manifest was of an earlier bundle in the same folder.

    Args:
        folder: the bundle.
        read: reads a JSON object; gives nothing where there is none.
    """
    sha256 = file_hash(folder / MANIFEST)
    found = (read(folder / name) for name in (LABELLED_CHECK, CHECK_RESULT))
    return tuple(one for one in found if one and one.get("bundle_sha256", sha256) == sha256)
