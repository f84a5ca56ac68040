"""How a finished bundle gives way to a newer one, so that no moment loses either of them."""

from __future__ import annotations

import shutil
from pathlib import Path

PREFIX = ".bundle-"


class BundleSwap:
    """Puts a new bundle in the place of an old one, by two renames once the new one is whole.

    Both lie in a hidden folder beside the bundle, named after it: what SIGKILL leaves there is
    found again, and the old bundle goes back if the kill came between the renames.
    """

    def __init__(self, folder: Path) -> None:
        """Take the bundle's folder; a link to it is followed."""
        self.folder = folder.resolve()
        self._beside = self.folder.with_name(f"{PREFIX}{self.folder.name}")
        self._old, self._fresh = self._beside / "old", self._beside / "fresh"

    def undo(self) -> None:
        """Remove what a swap that was cut off left, and put the old bundle back if it is missing.

        Raises:
            OSError: it cannot be put back; it is still beside.
        """
        if self._old.exists() and not self.folder.exists():
            self._old.rename(self.folder)
        shutil.rmtree(self._beside, ignore_errors=True)

    def __enter__(self) -> Path:
        """Return the folder to write the new bundle into."""
        return self._fresh

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Swap if all went well; however it ends, one whole bundle is there and nothing beside."""
        try:
            if kind is None:
                self.folder.rename(self._old)
                self._fresh.rename(self.folder)
        finally:
            self.undo()


def undo_swaps(folder: Path) -> None:
    """Undo all swaps that were cut off in a folder of bundles; nobody may work in it."""
    for beside in folder.glob(f"{PREFIX}*"):
        BundleSwap(folder / beside.name.removeprefix(PREFIX)).undo()
