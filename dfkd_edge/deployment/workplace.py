"""Where an export works: in its run, alone, in a folder that is gone afterwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dfkd_edge.run_bundles import BUNDLES
from dfkd_edge.run_lock import locked

WAIT_OR_STOP = "wait for it or stop it, then run the same command again"
LEFTOVERS = (".export-*", ".bundle-*")
"""Folders of exports and of bundles being replaced; whoever holds the lock knows that nobody works
in one that is there already."""


@contextlib.contextmanager
def export_workplace(run: Path) -> Iterator[Path]:
    """Hold the lock of a run and give a folder for graphs; what killed exports left is removed.

    A run that cannot be written into cannot change either: it needs no lock, and the folder is one
    of the system.

    Raises:
        RunDirError: another process works in the run.
    """
    if not os.access(run, os.W_OK):
        with tempfile.TemporaryDirectory(prefix=".export-") as work:
            yield Path(work)
        return
    with locked(run, 0, WAIT_OR_STOP):
        bundles = run / BUNDLES
        bundles.mkdir(exist_ok=True)
        for left in (path for pattern in LEFTOVERS for path in bundles.glob(pattern)):
            shutil.rmtree(left, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=bundles) as work:
            yield Path(work)
