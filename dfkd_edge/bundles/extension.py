"""Puts further files into a finished bundle and seals it again; the old one stays until then."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from dfkd_edge.bundles.opening import open_bundle
from dfkd_edge.bundles.scratch import swapped_in
from dfkd_edge.errors import EnvironmentLackingError
from dfkd_edge.files import atomic_write, file_hash, read_json
from dfkd_edge.runtime.bundle_files import MANIFEST, SIGNATURE, Bundle
from dfkd_edge.runtime.bundle_manifest import sealed


def extend_bundle(bundle: Bundle, files: Mapping[str, Path], replaced: Sequence[str]) -> Bundle:
    """Add files to a bundle whose hashes have been verified.

    Args:
        bundle: where to; results of devices and hidden files in it stay.
        files: by their names in the bundle.
        replaced: folders in the bundle that go first.

    Raises:
        EnvironmentLackingError: the disk is full or not writable; the bundle is as it was.
    """
    folder = bundle.folder
    prefixes = tuple(f"{name}/" for name in replaced)
    try:
        with swapped_in(folder) as fresh:
            shutil.copytree(folder, fresh, symlinks=True)
            for name in replaced:
                shutil.rmtree(fresh / name, ignore_errors=True)
            (fresh / SIGNATURE).unlink(missing_ok=True)  # of the bundle as it was
            for name, source in files.items():
                (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, fresh / name)
            document = read_json(folder / MANIFEST)
            kept = {n: e for n, e in document["files"].items() if not n.startswith(prefixes)}
            document["files"] = dict(sorted({**kept, **_entries(files)}.items()))
            atomic_write(fresh / MANIFEST, sealed(document))
    except OSError as error:
        what, hint = f"cannot write: {error.strerror}", "free some space, run again"
        raise EnvironmentLackingError(what, where=str(folder), hint=hint) from error
    return open_bundle(folder, verify=False)


def _entries(files: Mapping[str, Path]) -> dict[str, dict[str, str | int]]:
    return {
        name: {"sha256": file_hash(path), "bytes": path.stat().st_size}
        for name, path in files.items()
    }
