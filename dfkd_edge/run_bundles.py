"""The bundles that lie in a run: finished, cut off or damaged ones."""

from __future__ import annotations

from pathlib import Path

from dfkd_edge.runtime.bundle_files import may_be_bundle

BUNDLES = "bundles"


def bundles_of(run: Path) -> list[Path]:
    """List them by name; what works on one has hidden folders beside them, which are none."""
    folders = (run / BUNDLES).glob("*")
    return sorted(f for f in folders if f.name[0] != "." and may_be_bundle(f))
