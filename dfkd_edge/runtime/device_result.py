"""result.json: what a check found, in words and on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dfkd_edge.runtime.bundle_files import read_json, write_atomically
from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.faults import Fault, LackingFault
from dfkd_edge.runtime.share_interval import (
    TOO_FEW_WITHIN,
    interval_text,
    is_too_wide,
    mean_interval,
)

MARKER = "dfkd-edge device result"


def verdict(result: dict[str, Any]) -> str:
    """Say whether a check passed, and whether it ran beside the target."""
    faults = result["faults"]
    passed = f"not passed: {counted(len(faults), 'fault')}" if faults else "passed"
    return passed + (f" ({result['not_target']})" if result["not_target"] else "")


def score_lines(score: dict[str, Any]) -> Iterator[str]:
    """Say how a model does on labelled pictures, in the words and percents of `dfkd-edge check`.

    The mean over domains, which the host's verdict states, comes last where there are several.
    """
    yield from (f"note: {line}" for line in score["skipped"])
    figures, num_pictures = [], 0
    for name, domain in score["domains"].items():
        low, high = domain["top1_interval"]
        figures.append((domain["top1"], low, high))
        num_pictures += domain["num_images"]
        sure = domain["top1_answered"]
        right = "" if sure is None else f", of these {100 * sure:.1f}% right"
        answered = f"; {100 * domain['answered']:.1f}% answered{right}"
        yield _top1_text(name, *figures[-1], domain["num_images"]) + answered
    if len(figures) > 1:
        yield _top1_text("mean", *mean_interval(figures), num_pictures)


def _top1_text(name: str, top1: float, low: float, high: float, num_pictures: int) -> str:
    few = f": {TOO_FEW_WITHIN}" if is_too_wide(low, high) else ""
    figure = f"{name}: {100 * top1:.1f}% top-1, {interval_text(low, high)}"
    return f"{figure}, on {counted(num_pictures, 'picture')}{few}"


def why_kept(result: dict[str, Any], path: Path) -> str:
    """Say why an earlier result of the bundle is not replaced by one that holds no model."""
    if result["models"] or not _holds_model(path, result["bundle"]["manifest_sha256"]):
        return ""
    what = "no model was run, so the earlier result stays as it is"
    return f"{what} ({path}): name another file with --output"


def _holds_model(path: Path, manifest_sha256: str) -> bool:
    """Whether a file is the result of this very bundle, with a model that was run."""
    try:
        earlier = read_json(path)
    except Fault:
        return False
    bundle = earlier.get("bundle")
    return (
        earlier.get("marker") == MARKER
        and bool(earlier.get("models"))
        and isinstance(bundle, dict)
        and bundle.get("manifest_sha256") == manifest_sha256
    )


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
