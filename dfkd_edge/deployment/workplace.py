"""Where an export works: in its run, alone, in a folder that is gone afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dfkd_edge.deployment.bundle_swap import undo_swaps
from dfkd_edge.run_bundles import BUNDLES
from dfkd_edge.run_lock import locked

WAIT_OR_STOP = "wait for it or stop it, then run the same command again"
PREFIX = ".export-"


@contextlib.contextmanager
def export_workplace(run: Path) -> Iterator[Path]:
    """Hold the lock of a run and give a folder for graphs; what killed exports left is removed.

    A run that this user cannot write into is not locked, and the folder is one of the system: its
    owner may go on in it, and files that do not fit its manifest are refused when it is opened.

    Raises:
        RunDirError: another process works in the run.
    """
    if not os.access(run, os.W_OK):
        with tempfile.TemporaryDirectory(prefix=PREFIX) as work:
            yield Path(work)
        return
    with locked(run, hint=WAIT_OR_STOP):
        bundles = run / BUNDLES
        bundles.mkdir(exist_ok=True)
        # whoever holds the lock knows that nobody works in what is there already
        undo_swaps(bundles)
        for left in bundles.glob(f"{PREFIX}*"):
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=PREFIX, dir=bundles) as work:
            yield Path(work)
