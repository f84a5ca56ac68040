"""result.json: what a check found, in words and on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dfkd_edge.runtime.bundle_files import write_atomically
from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.faults import LackingFault

MARKER = "dfkd-edge device result"


def verdict(result: dict[str, Any]) -> str:
    """Say whether a check passed, and whether it ran beside the target."""
    faults = result["faults"]
    passed = f"not passed: {counted(len(faults), 'fault')}" if faults else "passed"
    return passed + (f" ({result['not_target']})" if result["not_target"] else "")


def why_kept(result: dict[str, Any], path: Path) -> str:
    """Say why an earlier result is not replaced: one that holds no model is worth less than any."""
    if result["models"] or not path.exists():
        return ""
    what = "no model was run, so the earlier result stays as it is"
    return f"{what} ({path}): name another file with --output"


def write_result(result: dict[str, Any], path: Path) -> None:
    """Write a result whole.

    Raises:
        LackingFault: the disk is full or not writable.
    """
    text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
    try:
        write_atomically(path, text.encode("utf-8"))
    except OSError as error:
        raise LackingFault(
            f"result cannot be written: {error.strerror}", str(path), "name a file with --output"
        ) from error
