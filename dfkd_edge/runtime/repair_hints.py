"""What to do about a damaged bundle: that depends on where it lies."""

from __future__ import annotations

import json
import os
from pathlib import Path

from dfkd_edge.runtime.faults import Fault

COPY_AGAIN = "copy the bundle again from the host that exported it, or export it again there"
EXPORT_AGAIN = "run the same dfkd-edge export again"
MANIFEST = "manifest.json"  # Of a bundle, and of a run


def damage(what: str, path: Path) -> Fault:
    """Make the fault of a damaged bundle, or of a file of it, with its repair hint."""
    return Fault(what, str(path), repair_hint(path))


def repair_hint(path: Path) -> str:
    """Name the next step for a damaged bundle, or a file of it.

    Below `bundles/` of a run it can be made again, and so it can where `export --output` put it;
    one that lies elsewhere was copied there.
    """
    real = Path(os.path.realpath(str(path)))  # unlike resolve(), raises nothing on a loop of links
    for folder in (real, *real.parents):
        is_in_run = folder.parent.name == "bundles" and (folder.parents[1] / MANIFEST).is_file()
        if is_in_run or _was_exported_here(folder):
            return EXPORT_AGAIN
    return COPY_AGAIN


def _was_exported_here(folder: Path) -> bool:
    """Whether a bundle's manifest names this very folder, and a run that is still here."""
    try:
        document = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        made = document["provenance"]
        return bool(made["folder"] == str(folder) and (Path(made["run"]) / MANIFEST).is_file())
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return False
