"""A swap of classes, checked before a heavy library is loaded: lists, bundle, run and place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dfkd_edge.bundles.opening import BUNDLES, find_bundle, held_runtimes, open_bundle
from dfkd_edge.bundles.signature import load_signer
from dfkd_edge.class_names import ClassNames, read_given_list, slug
from dfkd_edge.errors import ArtifactError, ConfigError, DfkdEdgeError, RunDirError
from dfkd_edge.files import content_hash, require_writable
from dfkd_edge.handover.lookup import Runtime, require_runtimes, target_of
from dfkd_edge.runs.run_dir import is_run
from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.target_profiles.profile import TargetProfile
from dfkd_edge.version import __version__

SWAPPED = "swapped"
"""Folder of a run for bundles with other classes: they are none of the run's own."""


@dataclass(frozen=True, slots=True)
class SwapRequest:
    """What a user asks of `classes swap`."""

    bundle: Path  # Or a run with one
    classes: Path  # The new list
    output: Path | None = None  # None puts the bundle into its run, or beside the one of no run
    max_drop: float | None = None  # Of the gate; None takes that of the bundle
    exist_ok: bool = False
    with_drawings: bool = True  # Fit the head to drawings of new names
    sign: Path | None = None  # Private key that signs the new bundle


@dataclass(frozen=True, kw_only=True, slots=True)
class SwapPlan:
    """A request that can be met."""

    source: Bundle  # Verified; never written into
    class_names: ClassNames
    list_read_as: str  # What another tool wrote; empty where the list is as ours
    run: Path  # With the images that the source was measured on
    target: TargetProfile
    runtimes: tuple[Runtime, ...]
    folder: Path  # The bundle to be made
    max_drop: float | None
    with_drawings: bool
    key: str
    finished: Bundle | None  # The very bundle, where it is there already
    sign: Path | None


def plan_swap(request: SwapRequest) -> SwapPlan:
    """Settle lists, run and folder.

    Raises:
        ClassNamesError: the list cannot be used.
        UsageError: there is no bundle, its classes are these, another bundle is in the way, or
            the key cannot sign.
        ArtifactError: the bundle was changed, or its run is gone.
        EnvironmentLackingError: the folder cannot be written.
    """
    class_names, read_as = read_given_list(request.classes)
    if request.sign:
        load_signer(request.sign)  # a key that cannot sign is told of before the work
    source = open_bundle(find_bundle(request.bundle))
    target = target_of(source)
    runtimes = require_runtimes(
        held_runtimes(source),
        target,
        batch=source.batch,
        classes=class_names.names,
        way_out="rename the class in the list, or swap a bundle without this runtime",
    )
    # numpy, which the refusals above do not wait for
    from dfkd_edge.bundles.bundle import refuse_foreign
    from dfkd_edge.bundles.origin import read_origin
    from dfkd_edge.bundles.replacement import finished_bundle

    if read_origin(source).classes == class_names:
        hint = "name a list with other names, another order or other prompts"
        what = f"the bundle has these {len(class_names)} classes already"
        raise ConfigError(what, where=f"--classes {request.classes}", hint=hint)
    run = _run_of(source)
    folder = request.output or _usual_place(source, slug(request.classes.stem))
    _refuse_place(folder, source)
    refuse_foreign(folder)
    require_writable(folder)
    asked = (request.max_drop, request.with_drawings)
    key = content_hash("swap", __version__, source.sha256, class_names, *asked)
    why_other = "" if request.exist_ok else "of other classes, or of another bundle or version"
    return SwapPlan(
        source=source,
        class_names=class_names,
        list_read_as=read_as,
        run=run,
        target=target,
        runtimes=tuple(runtimes),
        folder=folder,
        max_drop=request.max_drop,
        with_drawings=request.with_drawings,
        key=key,
        finished=finished_bundle(folder, key, why_other),
        sign=request.sign,
    )


def _run_of(source: Bundle) -> Path:
    from dfkd_edge.bundles.origin import run_with_surrogates

    try:
        return run_with_surrogates(source)
    except (DfkdEdgeError, OSError) as error:
        raise ArtifactError(
            f"the images of the bundle's run are not here, and a swap is measured on them: {error}",
            where=str(source.folder),
            hint="bring the run back to its place, or distill the new list",
        ) from error


def _usual_place(source: Bundle, listed: str) -> Path:
    folder = source.folder.resolve()
    place, run = folder.parent, folder.parents[1]
    if place.name in (BUNDLES, SWAPPED) and is_run(run):
        return run / SWAPPED / f"{source.manifest.target}-{listed}"
    return place / f"{folder.name}-{listed}"


def _refuse_place(folder: Path, source: Bundle) -> None:
    """Keep the source as it is, and runs to bundles of their own classes.

    Raises:
        RunDirError: it would be written into, or the place is for bundles of a run.
    """
    place, own = folder.resolve(), source.folder.resolve()
    if place == own or own in place.parents:
        raise RunDirError(
            "this is the bundle that is swapped, which stays as it is",
            where=str(folder),
            hint="choose another --output, or leave it out",
        )
    if place.parent.name == BUNDLES and is_run(place.parents[1]):
        raise RunDirError(
            "this is a place for bundles of the run's own classes",
            where=str(folder),
            hint=f"choose another --output, such as {place.parents[1] / SWAPPED / place.name}",
        )
