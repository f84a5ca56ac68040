"""Whether a bundle that is already there is the one asked for, told before anything is loaded."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dfkd_edge.bundles.bundle import REPLACEABLE, status_of
from dfkd_edge.bundles.opening import BUNDLES, holds_student_of, open_bundle
from dfkd_edge.config.file import flag_of
from dfkd_edge.config.settings import PipelineConfig
from dfkd_edge.errors import DfkdEdgeError, RunDirError
from dfkd_edge.files import read_json
from dfkd_edge.runs.run_dir import is_run
from dfkd_edge.runtime.bundle_files import MANIFEST, Bundle
from dfkd_edge.runtime.bundle_manifest import FORMAT
from dfkd_edge.version import __version__

SAME_NAME = ("target", "precision", "batch", "opset", "max_drop", "repair")
"""Settings of `[export]` whose flag is called like them."""


def refuse_other_bundle(folder: Path, run: Path, config: PipelineConfig, data: str) -> None:
    """Stop when a finished bundle there was made otherwise, and say in what.

    Raises:
        RunDirError: it was.
    """
    if status_of(folder) in REPLACEABLE:
        return
    manifest = read_json(folder / MANIFEST)
    is_older = manifest.get("format") != FORMAT
    older = [f"made by an earlier version, {_text(manifest.get('version'))}"]
    others = older if is_older else list(_differences(manifest, run, config, data))
    if len(others) == 1 and others[0].startswith("--runtime "):
        raise other_bundle(folder, others[0], "`dfkd-edge runtimes add` adds to it")
    if others:
        raise other_bundle(folder, "; ".join(others))


def refuse_place_in_other_run(folder: Path, run: Path) -> None:
    """Keep the bundles of a run to its own: `check` and `report` take them for such.

    Raises:
        RunDirError: it lies among the bundles of another run.
    """
    place = folder.resolve().parent
    if place.name == BUNDLES and is_run(place.parent) and place.parent != run:
        raise RunDirError(
            f"this is a place for bundles of another run, {place.parent.name}",
            where=str(folder),
            hint=f"choose another --output, or leave it out: {run / BUNDLES} is the usual place",
        )


def finished_bundle(folder: Path, key: str, why_other: str) -> Bundle | None:
    """Open the bundle that is already there, if all that its content depends on is the same.

    Args:
        folder: where it would lie.
        key: hash of what its content depends on.
        why_other: what must differ in a bundle of another key; empty where that may be replaced.

    Raises:
        RunDirError: another one is there, and may not be replaced.
    """
    try:
        bundle = open_bundle(folder)
    except DfkdEdgeError:
        return None  # nothing there, or damaged: write it anew; write_bundle spares foreign files
    if bundle.manifest.provenance.get("key") == key:
        return bundle
    if why_other:
        raise other_bundle(folder, why_other)
    return None


def other_bundle(
    folder: Path, why: str, way: str = "--output DIR writes another one"
) -> RunDirError:
    """Say that a bundle is in the way, and what to do."""
    return RunDirError(
        f"another bundle is there: {why}",
        where=str(folder),
        hint=f"--exist-ok replaces it, {way}",
    )


def _differences(
    manifest: dict[str, Any], run: Path, config: PipelineConfig, data: str
) -> Iterator[str]:
    made = manifest.get("provenance", {})
    if manifest.get("version") != __version__:
        yield f"made by version {manifest.get('version')}, this is {__version__}"
    if not holds_student_of(run, made):
        yield "of another student"
    made_with = made.get("config") if isinstance(made.get("config"), dict) else {}
    wanted = json.loads(json.dumps(dataclasses.asdict(config.export)))  # tuples are lists there too
    pairs = [(_flag(name), made_with.get(name), wanted[name]) for name in wanted]
    pairs += [("--data", made.get("data"), data), ("seed", made.get("seed"), config.seed)]
    for flag, there, here in pairs:
        if (there or None) != (here or None):  # an older bundle lacks what is off by default
            yield f"{flag} is {_text(there)} there, {_text(here)} here"


def _flag(name: str) -> str:
    key = f"export.{name}"
    return f"--{name.replace('_', '-')}" if name in SAME_NAME else flag_of(key) or key


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return " ".join(map(str, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value in (None, "") else str(value)
