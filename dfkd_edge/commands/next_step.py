"""What to do after `distill` and `export`, in the last line of their panels."""

from pathlib import Path

from dfkd_edge.bundles.opening import bundles_of, holds_student_of, open_bundle
from dfkd_edge.conversion.calibration_need import export_command
from dfkd_edge.errors import DfkdEdgeError
from dfkd_edge.results.kept import proof_of
from dfkd_edge.runtime.bundle_files import MANIFEST, Bundle


def bundle_step(bundle: str | Path) -> str:
    """Say what a bundle is for."""
    return f"copy {bundle}/ to the device and run there: python3 check.pyz"


def run_step(run: Path, report: str) -> str:
    """Say what comes after `distill`: the export, or what the run's newest bundle asks for."""
    bundle = newest_bundle(run)
    if bundle is None:
        earlier = bool(bundles_of(run))
        return export_command(run) + " --exist-ok" * earlier
    if bundle.manifest.status == "passed":
        return bundle_step(bundle.folder)
    gate = proof_of(bundle).gate
    assert gate is not None  # an export is always judged
    return f"the gate of {bundle.folder.name} failed: see {report}, then {gate.advice}"


def newest_bundle(run: Path) -> Bundle | None:
    """Open the newest finished bundle of the student that lies in a run; None without one."""
    manifests = [folder / MANIFEST for folder in bundles_of(run)]
    there = [manifest for manifest in manifests if manifest.is_file()]
    for manifest in sorted(there, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            bundle = open_bundle(manifest.parent, verify=False)
        except DfkdEdgeError:
            continue  # cut off, or of another version
        if holds_student_of(run, bundle.manifest.provenance):
            return bundle
    return None
