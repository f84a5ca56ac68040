"""The one walk through folders of pictures: of --data, --images, --calib-data, predict and checks.

Links are followed, but none that leads back above itself. Hidden files, and what systems and
storage boxes lay beside pictures, are none of the owner's pictures.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.faults import UsageFault
from dfkd_edge.runtime.picture_heads import HEAD_BYTES, known_format, other_format
from dfkd_edge.runtime.safe_files import reading

PICTURE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif"),
        *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".mpo"),
    }
)
"""Of the formats that are read, all that Pillow knows."""
UNREAD_SUFFIXES = frozenset(
    {
        *(".heic", ".heif", ".hif", ".avif", ".jxl", ".jp2", ".j2k", ".jpf", ".jpx", ".j2c"),
        *(".tga", ".ico", ".svg", ".eps", ".psd", ".pcx", ".exr", ".hdr", ".dds", ".fits", ".dcm"),
        *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".jps", ".qoi"),
    }
)
"""Of pictures that are not read: they are counted, so that nobody misses them."""
NO_FOLDERS = frozenset(
    {
        *("__macosx", "@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot"),
        *("$recycle.bin", "system volume information", "lost+found", "__pycache__"),
    }
)
"""Of macOS, Synology, QNAP and Windows: copies, thumbnails and what was deleted."""
NAMED_ANEW = re.compile(r"\.(?:jpe?g|png|webp|gif|tiff?)[^a-z0-9].*|\.\d+|")
"""Suffixes that say nothing: none, `.jpg_large`, `.png~`, `.jpg?w=300`, `.1`; content tells."""
MAX_DEPTH = 64  # Folders within folders
MAX_ENTRIES = 4_000_000  # Thrice ImageNet; a maze of links has more


@dataclass(frozen=True, eq=False)
class Folder:
    """A folder and what lies below; no picture of it has been opened."""

    path: Path
    folders: Sequence[Folder]  # Sorted by name
    names: Sequence[str]  # Of the pictures directly in it, sorted
    unread: Sequence[str]  # Of pictures in formats that are not read
    identity: tuple[int, int]  # Disk and number: the same for every name that links give it

    def below(self) -> Iterator[Path]:
        """Every picture in it and below."""
        yield from (self.path / name for name in self.names)
        for folder in self.folders:
            yield from folder.below()

    def pictures(self) -> tuple[Path, ...]:
        """Every picture in it and below, sorted."""
        return tuple(sorted(self.below()))

    def count(self, but: frozenset[Folder] = frozenset()) -> int:
        """Count the pictures, but those of some folders."""
        if self in but:
            return 0
        return len(self.names) + sum(folder.count(but) for folder in self.folders)

    def all_below(self) -> Iterator[Folder]:
        """Itself and every folder below."""
        yield self
        for folder in self.folders:
            yield from folder.all_below()

    def why_unread(self) -> list[str]:
        """Tell of pictures in formats that are not read, one line each format."""
        files = list(self.unread_below())
        named = [(file.suffix.lower() or "no suffix", file) for file in files]
        counts = Counter(suffix for suffix, _ in named)
        examples = dict(reversed(named))
        return [
            f"{examples[suffix]}: {counted(num, 'file')} of {suffix}, a format that is not read: "
            "save as JPEG or PNG"
            for suffix, num in sorted(counts.items())
        ]

    def unread_below(self) -> Iterator[Path]:
        """Every picture in a format that is not read."""
        yield from (self.path / name for name in self.unread)
        for folder in self.folders:
            yield from folder.unread_below()


def walk(root: Path) -> Folder:
    """Find every picture below a folder.

    Raises:
        UsageFault: a folder cannot be read, or there is no end to it.
    """
    return _walk(root, (), [MAX_ENTRIES], root)


def _walk(path: Path, above: tuple[tuple[int, int], ...], budget: list[int], root: Path) -> Folder:
    try:
        status = path.stat()
        with os.scandir(str(path)) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        what = f"folder cannot be read: {error.strerror}"
        raise UsageFault(what, str(path), "make it readable") from error
    budget[0] -= len(entries)
    if budget[0] < 0 or len(above) > MAX_DEPTH:
        what = f"more than {MAX_ENTRIES:,} files, or {MAX_DEPTH} folders within each other"
        raise UsageFault(what, str(root), "name the folder of the pictures, without links to more")
    here = (status.st_dev, status.st_ino)
    if here in above:  # a link that leads in a circle
        return Folder(path, (), (), (), here)
    shown = [entry for entry in entries if not _is_hidden(entry.name)]
    inside = {entry.name for entry in shown if _is_folder(entry)}
    folders = [e.name for e in shown if e.name in inside and not _leads_up(e, path)]
    suffixes = {e.name: _kind(path, e.name) for e in shown if e.name not in inside}
    return Folder(
        path,
        tuple(_walk(path / name, (*above, here), budget, root) for name in folders),
        tuple(name for name, suffix in suffixes.items() if suffix in PICTURE_SUFFIXES),
        tuple(name for name, suffix in suffixes.items() if suffix in UNREAD_SUFFIXES),
        here,
    )


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in NO_FOLDERS


def _kind(folder: Path, name: str) -> str:
    """Return the suffix of a file in small letters, or that of its content if it says nothing."""
    stem, dot, end = name.rpartition(".")  # a million times: no Path
    suffix = f"{dot}{end}".lower() if stem else ""
    if not NAMED_ANEW.fullmatch(suffix):
        return suffix
    try:
        with reading(folder / name) as stream:
            head = stream.read(HEAD_BYTES)
    except OSError:  # a pipe, or not readable: no suffix says that it is a picture
        return suffix
    return f".{known_format(head) or other_format(head)}".lower()


def _leads_up(entry: os.DirEntry[str], parent: Path) -> bool:
    """Whether an entry is a link to a folder that its own lies in."""
    if not entry.is_symlink():
        return False
    target, here = os.path.realpath(entry.path), os.path.realpath(str(parent))
    return os.path.join(here, "").startswith(os.path.join(target, ""))  # noqa: PTH118


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: its picture cannot be read
        return False
