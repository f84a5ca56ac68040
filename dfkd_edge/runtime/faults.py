"""What can go wrong on the device; each fault is one line, has an exit code and says what to do.

Fault             exit code 1   a file of the bundle is missing, cut short or changed
├── UsageFault    exit code 2   the request itself cannot be met
├── ProofFault    exit code 3   the model does not give what the host recorded
├── LackingFault  exit code 4   TensorRT, onnxruntime, Pillow, memory or space is not there
└── PictureFault  exit code 1   a picture cannot be read; others may be
"""

from __future__ import annotations

import json
from pathlib import Path

from dfkd_edge.runtime.plain_text import one_line
from dfkd_edge.runtime.safe_files import reading, real_path

COPY_AGAIN = "copy the bundle again from the host that exported it, or export it again there"
EXPORT_AGAIN = "run the same dfkd-edge export again"
MANIFEST = "manifest.json"  # Of a bundle, and of a run
MAX_READ_BYTES = 16 << 20  # Of one, to look where it was made


class Fault(Exception):
    """What is wrong, where, and what to do next, in one line."""

    exit_code = 1

    def __init__(self, what: str, where: str = "", hint: str = "") -> None:
        """Compose the line."""
        self.what, self.where, self.hint = one_line(what), one_line(where), hint
        place = f" ({self.where})" if where else ""
        advice = f": {hint}" if hint else ""
        super().__init__(self.what + place + advice)


class UsageFault(Fault):
    """The request cannot be met as it stands."""

    exit_code = 2


class ProofFault(Fault):
    """The model does not give what the host recorded."""

    exit_code = 3


class LackingFault(Fault):
    """This machine lacks something."""

    exit_code = 4


class PictureFault(Fault):
    """A picture cannot be read."""


def damage(what: str, path: Path) -> Fault:
    """Make the fault of a damaged bundle, or of a file of it, with its repair hint."""
    return Fault(what, str(path), repair_hint(path))


def repair_hint(path: Path) -> str:
    """Name the next step for a damaged bundle, or a file of it.

    Below `bundles/` of a run it can be made again, and so it can where `export --output` put it;
    one that lies elsewhere was copied there.
    """
    real = real_path(path)
    for folder in (real, *real.parents):
        is_in_run = folder.parent.name == "bundles" and (folder.parents[1] / MANIFEST).is_file()
        if is_in_run or _was_exported_here(folder):
            return EXPORT_AGAIN
    return COPY_AGAIN


def _was_exported_here(folder: Path) -> bool:
    try:  # the manifest names this very folder, and a run that is still here
        with reading(folder / MANIFEST) as stream:
            document = json.loads(stream.read(MAX_READ_BYTES).decode("utf-8"))
        made = document["provenance"]
        return bool(made["folder"] == str(folder) and (Path(made["run"]) / MANIFEST).is_file())
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        return False
