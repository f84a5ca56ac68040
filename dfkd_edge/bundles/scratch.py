"""Where an export works, and how a new bundle takes the place of an old one.

Both use hidden folders beside the bundles, so that what a killed export leaves is no bundle, and
the next one finds it.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dfkd_edge.bundles.opening import BUNDLES, SWAP_PREFIX
from dfkd_edge.files import scratch_folder
from dfkd_edge.runs.lock import WAIT_OR_STOP, linked, locked

EXPORT_PREFIX = ".export-"
MAX_TRIES = 100  # To take a bundle's place that readers put the old one back into


@contextlib.contextmanager
def export_scratch(run: Path) -> Iterator[Path]:
    """Hold the lock of a run and give a folder for graphs; what killed exports left is removed.

    A run that this user cannot write into is not locked, and the folder is one of the system: its
    owner may go on in it, and files that do not fit its manifest are refused when it is opened.

    Raises:
        RunDirError: another process works in the run.
    """
    if not os.access(run, os.W_OK):
        with scratch_folder() as scratch:
            yield scratch
        return
    with locked(run, hint=WAIT_OR_STOP):
        bundles = run / BUNDLES
        if bundles.is_symlink():
            raise linked(bundles)
        bundles.mkdir(exist_ok=True)
        # whoever holds the lock knows that nobody works in what is there already
        for beside in bundles.glob(f"{SWAP_PREFIX}*"):
            undo_swap(bundles / beside.name.removeprefix(SWAP_PREFIX))
        for left in bundles.glob(f"{EXPORT_PREFIX}*"):
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=EXPORT_PREFIX, dir=bundles) as scratch:
            yield Path(scratch)


@contextlib.contextmanager
def swapped_in(folder: Path) -> Iterator[Path]:
    """Give a folder to write a new bundle into, and put it in the place of the old one.

    A folder that holds files cannot be renamed over: the old bundle is moved away first. However
    this ends, one whole bundle is there.

    Raises:
        OSError: a folder cannot be renamed.
    """
    folder = folder.resolve()  # a link to a bundle is followed
    undo_swap(folder)  # of a process that was killed
    try:
        yield _beside(folder) / "fresh"
        for left in reversed(range(MAX_TRIES)):
            folder.rename(_beside(folder) / "old")
            try:
                (_beside(folder) / "fresh").rename(folder)
            except OSError:
                # a reader holds no lock, and took this for what a kill has left: `put_back`
                if not left or not folder.exists():
                    raise
            else:
                break
    finally:
        undo_swap(folder)


def undo_swap(folder: Path) -> None:
    """Remove what a swap left, and put the old bundle back if it is missing.

    Raises:
        OSError: it cannot be put back; it is still beside.
    """
    folder = folder.resolve()
    if _beside(folder).is_symlink():  # it would lead what is written out of this folder
        _beside(folder).unlink()
    old = _beside(folder) / "old"
    if old.exists() and not folder.exists():
        old.rename(folder)
    shutil.rmtree(_beside(folder), ignore_errors=True)


def _beside(folder: Path) -> Path:
    return folder.with_name(f"{SWAP_PREFIX}{folder.name}")
