"""Finds and opens bundles; it loads no numpy, so that a wrong path is refused quickly."""

import contextlib
import shlex
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from dfkd_edge.errors import UsageError, faults_as_errors
from dfkd_edge.files import file_hash
from dfkd_edge.runs.run_dir import distill_again, is_run, read_stages, refuse_old_latest
from dfkd_edge.runtime import bundle_files
from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.runtime.faults import Fault
from dfkd_edge.runtime.safe_files import real_path

BUNDLES = "bundles"
SWAP_PREFIX = ".bundle-"  # Of the hidden folder from which a new bundle takes an old one's place


def put_back(place: Path) -> None:
    """Put bundles of a folder back that a kill has taken away, between two renames of a swap."""
    for beside in place.glob(f"{SWAP_PREFIX}*"):
        folder = place / beside.name.removeprefix(SWAP_PREFIX)
        if not folder.exists() and (beside / "old").is_dir():
            with contextlib.suppress(OSError):  # read-only, or another process was quicker
                (beside / "old").rename(folder)


def bundles_of(run: Path) -> list[Path]:
    """List a run's bundles by name; hidden folders are the scratch space of exports."""
    put_back(run / BUNDLES)
    folders = (run / BUNDLES).glob("*")
    return sorted(f for f in folders if f.name[0] != "." and bundle_files.may_be_bundle(f))


def holds_student_of(run: Path, provenance: Mapping[str, Any]) -> bool:
    """Whether a bundle's provenance names the very student that lies in a run now."""
    from dfkd_edge.artifacts import student_weights  # loads numpy, which a wrong path need not

    weights, named = student_weights(run / "student"), provenance.get("student_sha256")
    return named is not None and weights.is_file() and file_hash(weights) == named


def open_bundle(folder: Path, verify: bool = True) -> Bundle:
    """Open a bundle.

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
        UsageError: the run holds none or several, or is an old one under the newest's name.
    """
    refuse_old_latest(path)
    if path.is_file():
        within = next(filter(bundle_files.may_be_bundle, path.parents), None)
        such = f", such as {within}" if within else ""
        raise UsageError(
            f"'{path.name}' is a file, not a bundle",
            where=str(path),
            hint=f"name the folder of a bundle{such}",
        )
    put_back(real_path(path).parent)
    found = bundles_of(path)
    if not found:
        if not is_run(path):
            return path
        is_finished = "student" in read_stages(path)
        export = f"dfkd-edge export {shlex.quote(str(path))} makes one"
        raise UsageError(
            "the run has no bundle yet" if is_finished else "the run has no student yet",
            where=str(path),
            hint=export if is_finished else f"this goes on with it: {distill_again(path)}",
        )
    if len(found) > 1:
        names = [f.name if _is_readable(f) else f"{f.name} (damaged)" for f in found]
        raise UsageError(
            f"the run has {len(found)} bundles: {', '.join(names)}",
            where=str(path),
            hint=f"name one, such as {next(filter(_is_readable, found), found[0])}",
        )
    return found[0]


def _is_readable(bundle: Path) -> bool:
    """Whether a bundle has a whole manifest; its other files are not looked at."""
    try:
        bundle_files.read_manifest(bundle)
    except Fault:
        return False
    return True


def held_runtimes(bundle: Bundle) -> tuple[str, ...]:
    """Name the runtimes that a bundle was made for."""
    below = (PurePosixPath(name).parts for name in bundle.manifest.files)
    of_runtimes = (parts[1] for parts in below if parts[0] == bundle_files.RUNTIMES)
    return tuple(dict.fromkeys(of_runtimes))


def held_precision(bundle: Bundle, precision: str) -> str:
    """Return a precision that a bundle holds a model of.

    Raises:
        UsageError: it holds none.
    """
    if precision not in bundle.precisions:
        held = f"it holds {', '.join(bundle.precisions)}"
        raise UsageError(f"bundle holds no {precision} model", where="--precision", hint=held)
    return precision
