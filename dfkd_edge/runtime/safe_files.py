"""Files that others may have laid: only plain ones are read, and nothing is written through a link.

A folder that comes from elsewhere may hold links to files of this user, pipes that never answer,
or devices that never end.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

NO_LINKS = getattr(os, "O_NOFOLLOW", 0)  # Windows has neither
NO_WAITING = getattr(os, "O_NONBLOCK", 0)
BINARY = getattr(os, "O_BINARY", 0)
LEFTOVER = re.compile(r"\..+\.(?:([0-9a-f]{8})-)?(\d+)(?:-[0-9a-f]{16})?\.tmp")
"""A temporary file: the machine, the process, 64 random bits; earlier versions wrote the process
alone."""
ABANDONED_S = 24 * 3600.0  # No write takes so long: age tells where another machine wrote
TIMINGS = re.compile(r"timings-.+\.cache")
OPEN_TO_OTHERS = "can be written by others"
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def real_path(path: Path) -> Path:
    """Follow all links; unlike `Path.resolve`, it raises nothing on a loop of them."""
    return Path(os.path.realpath(str(path)))


class NotPlainError(OSError):
    """A link, pipe, socket, device or folder lies where a plain file should."""

    def __init__(self, path: Path) -> None:
        """Name it as the errors of the system are named."""
        super().__init__(None, "not a plain file", str(path))


def open_plain(path: Path, flags: int = os.O_RDONLY, mode: int = 0o666) -> int:
    """Open a plain file and return its descriptor; a link to one is followed when it is read.

    Raises:
        OSError: it cannot be opened, or is anything but a plain file.
    """
    # a pipe without a writer would hold an open that waits
    descriptor = os.open(str(path), flags | NO_WAITING | BINARY, mode)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotPlainError(path)
    return descriptor


def reading(path: Path) -> BinaryIO:
    """Open a plain file to read.

    Raises:
        OSError: it cannot be opened, or is anything but a plain file.
    """
    return os.fdopen(open_plain(path), "rb")


def file_sha256(path: Path) -> str:
    """SHA-256 of a plain file, in hex."""
    digest = hashlib.sha256()
    with reading(path) as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):  # file_digest is of Python 3.11
            digest.update(block)
    return digest.hexdigest()


def temporary_beside(path: Path) -> Path:
    """Name a new temporary file in the same folder: nothing is renamed across disks."""
    owner = f"{_machine()}-{os.getpid()}-{secrets.token_hex(8)}"
    return path.with_name(f".{path.name[:100]}.{owner}.tmp")


@contextlib.contextmanager
def replacing(path: Path, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Give a new file beside a path; once it is whole it takes the place of what lies there.

    Args:
        path: of the file.
        mode: what it permits, as far as the umask lets it.

    Raises:
        OSError: the disk is full or not writable.
    """
    temporary = temporary_beside(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = open_plain(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINKS, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())  # else a power cut may keep the new name of an empty file
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Write a file so that it is whole or not there.

    Raises:
        OSError: the disk is full or not writable.
    """
    with replacing(path, mode) as stream:
        stream.write(content)


def unshare(path: Path) -> None:
    """Give a file that has other names, too, a copy of its own: nothing changes under those.

    An archive may bring a hard link to any file of this user.

    Raises:
        OSError: it cannot be read or written.
    """
    with contextlib.suppress(FileNotFoundError):
        found = os.lstat(str(path))
        if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
            with reading(path) as stream, replacing(path) as written:
                shutil.copyfileobj(stream, written)


def append_line(path: Path, line: str) -> None:
    """Add a line to a text file, never through a link.

    Raises:
        OSError: it cannot be written, or is anything but a plain file.
    """
    unshare(path)
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | NO_LINKS
    with os.fdopen(open_plain(path, flags), "rb+", buffering=0) as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - 1))
        # a kill has cut the last line: joined to it, this one would be lost too
        begin = b"\n" if stream.read(1) not in (b"", b"\n") else b""
        left = begin + (line + "\n").encode("utf-8", "backslashreplace")
        while left:
            left = left[stream.write(left) :]


def remove_leftovers_of(path: Path) -> None:
    """Delete what killed processes left of writing one file; its folder alone is looked at."""
    for left in path.parent.glob(f".{glob.escape(path.name[:100])}.*.tmp"):
        if is_leftover(left):
            with contextlib.suppress(OSError):  # of another user
                left.unlink()


def remove_leftovers(folder: Path) -> None:
    """Delete temporary files below a folder whose writers are dead."""
    for root, _, names in os.walk(str(folder)):  # it follows no link
        for path in (Path(root, name) for name in names):
            if is_leftover(path):
                with contextlib.suppress(OSError):  # of another user
                    path.unlink()


def is_leftover(path: Path) -> bool:
    """Whether a name is that of a temporary file, and its writer is dead."""
    match = LEFTOVER.fullmatch(path.name)
    if not match:
        return False
    if match.group(1) == _machine():
        return not _is_alive(int(match.group(2)))
    with contextlib.suppress(OSError):  # its writer was quicker
        return time.time() - path.lstat().st_mtime > ABANDONED_S
    return False


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # of another user
    return True


def _machine() -> str:
    return hashlib.sha256(platform.node().encode("utf-8", "replace")).hexdigest()[:8]


def why_not_private(path: Path) -> str:
    """Say why others may have laid what lies there, or have changed it; empty where none could.

    Raises:
        OSError: it is not there.
    """
    found = os.lstat(str(path))
    if stat.S_ISLNK(found.st_mode):
        return "is a link"
    if hasattr(os, "geteuid") and found.st_uid not in (0, os.geteuid()):
        return "belongs to another user"
    if found.st_mode & OTHERS_WRITE and os.name == "posix":
        return OPEN_TO_OTHERS
    return ""


def make_private(folder: Path) -> None:
    """Make a folder that this user alone may open; one that is there stays as it is.

    Raises:
        OSError: it cannot be made.
    """
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)


def used_again(path: Path) -> None:
    """Note that a file of a cache is of use: `bound_cache` deletes it after others."""
    with contextlib.suppress(OSError):  # of another user
        os.utime(str(path))


def _engines(folder: Path) -> dict[str, list[tuple[Path, os.stat_result]]]:
    """Find engines with what lies beside them, and what builds have measured, by their stems.

    The folder may be a link to a disk that holds files of others.
    """
    groups: dict[str, list[tuple[Path, os.stat_result]]] = {}
    for path in folder.iterdir():
        with contextlib.suppress(OSError):  # another process was quicker
            found = path.lstat()
            if stat.S_ISREG(found.st_mode):
                groups.setdefault(path.stem, []).append((path, found))
    return {
        stem: group
        for stem, group in groups.items()
        if any(path.suffix == ".engine" or TIMINGS.fullmatch(path.name) for path, _ in group)
    }


def bound_cache(folder: Path, most_bytes: int) -> int:
    """Delete what was used longest ago in a cache of ours; returns the bytes that are freed.

    Files that differ in their suffix alone go together. Never called for a folder that the user
    names.

    Args:
        folder: of the cache.
        most_bytes: that may stay.
    """
    groups = _engines(folder)
    sizes = {stem: sum(found.st_size for _, found in group) for stem, group in groups.items()}
    total = before = sum(sizes.values())
    for stem in sorted(groups, key=lambda stem: max(f.st_mtime_ns for _, f in groups[stem])):
        if total <= most_bytes:
            break
        for path, _ in groups[stem]:
            with contextlib.suppress(OSError):
                path.unlink()
        total -= sizes[stem]
    return before - total


def close_cache(folder: Path) -> None:
    """Make a cache of our own private; from one that others could write into engines go.

    Earlier versions left it to the umask. Never called for a folder that the user names.

    Raises:
        OSError: it cannot be made or closed, or an engine not be removed.
    """
    make_private(folder)
    if why_not_private(real_path(folder)) == OPEN_TO_OTHERS:
        folder.chmod(0o700)  # first: nothing more is laid there
        for group in _engines(folder).values():
            for path, _ in group:
                path.unlink()
