"""What to do about a damaged bundle: that depends on where it lies."""

from __future__ import annotations

import os
from pathlib import Path

COPY_AGAIN = "copy the bundle again from the host"
EXPORT_AGAIN = "run the same dfkd-edge export again"


def how_to_mend(path: Path) -> str:
    """Name the next step for a damaged bundle, or a file of it.

    Below `bundles/` of a run it can be made again; one that lies elsewhere was copied there.
    """
    real = Path(os.path.realpath(str(path)))  # a loop of links raises nothing here
    for folder in (real, *real.parents):
        if folder.parent.name == "bundles" and (folder.parents[1] / "manifest.json").is_file():
            return EXPORT_AGAIN
    return COPY_AGAIN
