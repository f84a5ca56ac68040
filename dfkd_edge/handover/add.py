"""Adds runtimes to a bundle that is finished: proven here again, and sealed again."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

from dfkd_edge.artifacts import Bytes
from dfkd_edge.bundles.extension import extend_bundle
from dfkd_edge.bundles.opening import BUNDLES
from dfkd_edge.bundles.scratch import export_scratch
from dfkd_edge.errors import faults_as_errors
from dfkd_edge.files import scratch_folder
from dfkd_edge.handover.lookup import require_runtimes, target_of
from dfkd_edge.handover.make import ProvenModel, RuntimeFolders
from dfkd_edge.interfaces import Reporter
from dfkd_edge.runs.run_dir import is_run
from dfkd_edge.runtime.bundle_files import RUNTIMES, Bundle
from dfkd_edge.target_profiles.profile import Precision


def add_runtimes(bundle: Bundle, names: Sequence[str], reporter: Reporter) -> Bundle:
    """Add runtimes, or make them anew, in a bundle whose hashes have been verified.

    Raises:
        ConfigError: a runtime is unknown, never was on the target, or would misread a class.
        ConversionError: a variant of the graph answers otherwise, or is refused.
        EnvironmentLackingError: the bundle cannot be written; it is as it was.
    """
    runtimes = require_runtimes(
        names, target_of(bundle), batch=bundle.batch, classes=bundle.classes
    )
    with _scratch(bundle.folder) as work:
        files = RuntimeFolders(model_of(bundle), work).make(runtimes, reporter)
        replaced = [f"{RUNTIMES}/{runtime.profile.name}" for runtime in runtimes]
        return extend_bundle(bundle, files, replaced)


def model_of(bundle: Bundle) -> ProvenModel:
    """Take what runtimes need out of a finished bundle.

    Raises:
        ArtifactError: a file is damaged.
    """
    with faults_as_errors():
        held = cast(tuple[Precision, ...], tuple(bundle.manifest.models))
        images: Bytes = bundle.golden()["images"]
        return ProvenModel(
            target=target_of(bundle),
            precision=cast(Precision, bundle.precision),
            models={precision: bundle.model_path(precision) for precision in held},
            classes=bundle.classes,
            side_px=bundle.side_px,
            batch=bundle.batch,
            golden_images=images,
            confidence=bundle.confidence,
            has_failed=bundle.manifest.status != "passed",
        )


@contextlib.contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Give a place for graphs; of a bundle in a run, the run is locked against an export."""
    run = folder.resolve().parents[1]
    if folder.resolve().parent.name == BUNDLES and is_run(run):
        with export_scratch(run) as work:
            yield work
    else:
        with scratch_folder() as work:
            yield work
