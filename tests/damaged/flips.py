"""One byte of a bundle is another: whoever verifies the bundle names the file."""

import random
from collections.abc import Iterator
from pathlib import Path

from dfkd_edge.bundles.opening import open_bundle
from dfkd_edge.errors import DfkdEdgeError
from dfkd_edge.runtime.bundle_files import MANIFEST, damaged_files, read_bundle, read_manifest
from dfkd_edge.runtime.faults import Fault


def drawn_flips(folder: Path, num: int, rng: random.Random) -> Iterator[tuple[str, int, int]]:
    """Draw a file of the manifest or itself, a place, and what is added to the byte there.

    Half of the flips take every file alike, half every byte: a graph is most of a bundle.
    """
    names = [MANIFEST, *read_manifest(folder).files]
    sizes = {name: (folder / name).stat().st_size for name in names}
    names = [name for name in names if sizes[name]]
    for number in range(num):
        weights = [sizes[name] for name in names] if number % 2 else None
        (name,) = rng.choices(names, weights)
        yield name, rng.randrange(sizes[name]), rng.randrange(1, 256)


class Flipped:
    """A bundle with one byte changed, as long as the block lasts."""

    def __init__(self, folder: Path, name: str, place: int, more: int) -> None:
        self.path, self.place, self.more = folder / name, place, more

    def __enter__(self) -> None:
        self.whole = self.path.read_bytes()
        damaged = bytearray(self.whole)
        damaged[self.place] = (damaged[self.place] + self.more) % 256
        self.path.write_bytes(damaged)

    def __exit__(self, *_error: object) -> None:
        self.path.write_bytes(self.whole)


def refused_on_device(folder: Path) -> list[str]:
    """Name what check.pyz refuses in a bundle: what `BundleCheck` does first."""
    try:
        faults = damaged_files(folder, read_bundle(folder).manifest)
    except Fault as fault:
        faults = [fault]
    return [Path(fault.where).relative_to(folder).as_posix() for fault in faults]


def refused_on_host(folder: Path) -> list[str]:
    """Name what `check` and every other command of the host refuses in a bundle."""
    try:
        open_bundle(folder)
    except DfkdEdgeError as error:
        return [Path(error.where).relative_to(folder).as_posix()]
    return []


def unnoticed(folder: Path, name: str, place: int, more: int) -> list[str]:
    """Change a byte and change it back; returns who does not refuse that file, and it alone."""
    with Flipped(folder, name, place, more):
        found = {"check.pyz": refused_on_device(folder), "check": refused_on_host(folder)}
    return [who for who, names in found.items() if names != [name]]
