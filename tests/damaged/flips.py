"""One byte of a bundle is another: whoever verifies the bundle names the file."""

import collections
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from dfkd_edge.bundles.opening import open_bundle
from dfkd_edge.errors import DfkdEdgeError
from dfkd_edge.runtime.bundle_files import (
    CHECK,
    MANIFEST,
    damaged_files,
    read_bundle,
    read_manifest,
)
from dfkd_edge.runtime.faults import Fault
from tests.damaged import warm_entry

DEVICE, HOST = COMMANDS = ("python3 check.pyz", "dfkd-edge check")
DAMAGED = 1  # Exit code of both


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


def words(folder: Path, title: str) -> list[str]:
    """Say how a command is called, beginning with what becomes `sys.argv[0]`."""
    if title == HOST:
        return ["dfkd-edge", "check", str(folder)]
    return [str(folder / CHECK), "--duration", "0"]


def unlike(title: str, code: int, said: str, file: Path) -> list[str]:
    """Say how a command ended, if not by refusing a file by its name."""
    if title == DEVICE and file.name == CHECK and code > 0:
        # what runs is flipped itself: where its start is, Python refuses what it was told to run
        is_refused = by_python(said) or CHECK in said
    else:
        is_refused = code == DAMAGED and "Traceback" not in said and str(file) in said
    if is_refused:
        return []
    return [f"{title}: exit code {code}, {said.strip()[-300:]}"]


def by_python(said: str) -> bool:
    """Whether a program did not come so far as to refuse a file itself."""
    return not said.startswith("error: ")


def run_fresh(folder: Path, name: str, place: int, more: int) -> list[str]:
    """Give a flip to the commands in processes of their own; returns how those end that miss it."""
    missed = []
    with Flipped(folder, name, place, more):
        for title in COMMANDS:
            own = words(folder, title)
            call = own if title == DEVICE else ["-m", "dfkd_edge", *own[1:]]
            done = subprocess.run([sys.executable, *call], capture_output=True, text=True)
            missed += unlike(title, done.returncode, done.stderr, folder / name)
    return missed


class Commands:
    """The commands that verify a bundle, warm: they run in forks of processes that wait here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ends: collections.Counter[tuple[str, str]] = collections.Counter()
        """How often each command ended in which way."""
        self._waiting: dict[str, subprocess.Popen[str]] = {}

    def __enter__(self) -> "Commands":
        script = Path(warm_entry.__file__)
        titles = {"device": DEVICE, "archive": DEVICE, "host": HOST}
        with Flipped(self.folder, MANIFEST, 0, 1):  # each runs once to load what it refuses with
            for kind in warm_entry.KINDS:
                call = [sys.executable, str(script), kind, *words(self.folder, titles[kind])]
                pipe = subprocess.PIPE
                self._waiting[kind] = subprocess.Popen(call, text=True, stdin=pipe, stdout=pipe)
                self._answer(kind)
        return self

    def __exit__(self, *_error: object) -> None:
        for process in self._waiting.values():
            process.communicate()

    def missed(self, name: str, place: int, more: int) -> list[str]:
        """Give a flip to the commands; returns how those end that do not refuse it by name."""
        kinds = {DEVICE: "archive" if name == CHECK else "device", HOST: "host"}
        missed = []
        with Flipped(self.folder, name, place, more):
            for title, kind in kinds.items():
                code, said = self._answer(kind)
                by = ", by Python itself" if by_python(said) else ""
                self.ends[title, f"exit code {code}{by}"] += 1
                missed += unlike(title, code, said, self.folder / name)
        return missed

    def _answer(self, kind: str) -> tuple[int, str]:
        process = self._waiting[kind]
        assert process.stdin
        assert process.stdout
        process.stdin.write("\n")
        process.stdin.flush()
        code, said = json.loads(process.stdout.readline())
        return code, said
