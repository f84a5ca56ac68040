"""Reading, writing and hashing files on the host; every other room comes here for it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from dfkd_edge.errors import ArtifactError, ConfigError, EnvironmentLackingError
from dfkd_edge.runtime import documents
from dfkd_edge.runtime.faults import Fault
from dfkd_edge.runtime.picture_walk import walk
from dfkd_edge.runtime.safe_files import (
    file_sha256,
    is_leftover,
    reading,
    remove_leftovers_of,
    replacing,
    temporary_beside,
    why_not_private,
    write_atomically,
)

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

file_hash = file_sha256
SCRATCH = "dfkd-edge"  # Begins the names of our folders for temporary files
REMOVALS = 2
MAX_TOML_BYTES = 1 << 20  # Ours have some thousand bytes


def atomic_write(path: Path, content: bytes | str, *, mode: int = 0o666, tidy: bool = True) -> None:
    """Write a file so that it is whole or not there; folders above it are made.

    Args:
        path: of the file.
        content: text is written as UTF-8.
        mode: what it permits, as far as the umask lets it.
        tidy: remove what killed writes of it have left, for which its folder is listed.

    Raises:
        EnvironmentLackingError: the disk is full or not writable.
    """
    # a name that is no UTF-8 is written as its escapes
    raw = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    try:
        if tidy:
            remove_leftovers_of(path)
        write_atomically(path, raw, mode)
    except OSError as error:
        raise _unwritable(path, error) from error


@contextlib.contextmanager
def atomic_stream(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that is larger than the memory; it is whole or not there.

    Raises:
        EnvironmentLackingError: the disk is full or not writable.
    """
    try:
        remove_leftovers_of(path)
        with replacing(path) as stream:
            yield stream
    except OSError as error:
        raise _unwritable(path, error) from error


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give a folder for temporary files; what dead processes left of such is removed.

    Raises:
        EnvironmentLackingError: the disk is full or not writable.
    """
    place = Path(os.environ.get("TMPDIR", ""))
    try:
        place = _temporary_place()
        folder = temporary_beside(place / SCRATCH)
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise _unwritable(place, error) from error
    remove_scratch_leftovers()
    try:
        yield folder
    finally:
        _remove_tree(folder)


def remove_scratch_leftovers() -> None:
    """Remove folders for temporary files whose processes are dead, of this user alone.

    Raises:
        OSError: no place for temporary files can be written into.
    """
    for left in _temporary_place().glob(f".{SCRATCH}.*.tmp"):
        with contextlib.suppress(OSError):  # another process was quicker
            if is_leftover(left) and not why_not_private(left):
                _remove_tree(left)


def _temporary_place() -> Path:
    place = Path(os.environ.get("TMPDIR", ""))
    if place.name and place.is_dir():
        return place
    return Path(tempfile.gettempdir())  # which tries places by writing into them


def _remove_tree(folder: Path) -> None:
    """Remove a folder of ours; a file that resists once (open in a scanner, say) is tried again."""
    for _ in range(REMOVALS):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return


def _unwritable(path: Path, error: OSError) -> EnvironmentLackingError:
    what, hint = f"cannot write: {error.strerror}", "free some space, run again"
    return EnvironmentLackingError(what, where=str(path), hint=hint)


def read_json(path: Path, hint: str = "") -> dict[str, Any]:
    """Read a JSON object; `hint` says what to do about a damaged one, else that of a bundle does.

    Raises:
        ArtifactError: it is missing, larger than any of ours, damaged, or holds no object.
    """
    try:
        return documents.read_json(path)
    except Fault as fault:
        raise ArtifactError(fault.what, where=fault.where, hint=hint or fault.hint) from fault


def read_toml(path: Path | Traversable) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: it is missing, unreadable or no TOML.
    """
    raw = b""
    try:
        if not isinstance(path, Path):  # of this package
            return tomllib.loads(path.read_text(encoding="utf-8"))
        with reading(path) as stream:
            raw = stream.read(MAX_TOML_BYTES + 1)
        if len(raw) > MAX_TOML_BYTES:  # the rest would be left out without a word
            raise ConfigError("not a TOML file: larger than 1 MiB", where=str(path))
        return tomllib.loads(raw.decode("utf-8-sig"))  # Notepad begins a file with a BOM
    except FileNotFoundError as error:
        raise ConfigError("no such TOML file", where=str(path)) from error
    except OSError as error:
        raise ConfigError(f"not a TOML file: {error.strerror}", where=str(path)) from error
    except (ValueError, RecursionError) as error:
        hint = "save it as UTF-8" if isinstance(error, UnicodeDecodeError) else ""
        if b"\\" in raw:
            hint = r"write paths in single quotes, such as 'C:\pictures'"
        raise ConfigError(f"not a TOML file: {error}", where=str(path), hint=hint) from error


def folder_stamp(folder: str) -> list[tuple[str, int, int]]:
    """Name, size and time of change of every picture below: another picture, another stamp."""
    root = Path(folder)
    files = walk(root).pictures() if folder and root.is_dir() else ()
    found = [(file, file.stat()) for file in files if file.is_file()]
    return [(str(p.relative_to(root)), stat.st_size, stat.st_mtime_ns) for p, stat in found]


def content_hash(*parts: object) -> str:
    """Hash dataclasses and plain values to 16 hex digits; equal content gives equal digits."""

    def plain(value: object) -> object:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return dataclasses.asdict(value)
        return str(value)

    text = json.dumps(parts, default=plain, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def require_writable(path: Path, option: str = "--output") -> None:
    """Check that a folder can be made or written into, before anything is computed for it.

    Raises:
        EnvironmentLackingError: it cannot.
    """
    there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        what = f"cannot write: {there} {'is read-only' if there.is_dir() else 'is a file'}"
        raise EnvironmentLackingError(what, where=str(path), hint=f"choose another {option}")
