"""The lock of a run directory: one process works in it at a time, and leaves its name."""

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from dfkd_edge.errors import EnvironmentLackingError, RunDirError
from dfkd_edge.files import remove_scratch_leftovers
from dfkd_edge.runtime.plain_text import printable
from dfkd_edge.runtime.safe_files import reading, remove_leftovers, unshare, write_atomically

LOCK, HOLDER = ".lock", ".lock.holder"
"""Files of a run: the lock, and who holds it, for the error that another process gets."""
OR_ANOTHER_RUN = "wait for it or stop it, the same command goes on then; --output DIR makes another"
"""Hint of a command that makes a run."""
WAIT_OR_STOP = "wait for it or stop it, then run the same command again"
"""Hint of a command that works in a run."""
MAX_HOLDER_BYTES = 300
NO_LINKS = (
    *(LOCK, HOLDER, "run.log", "metrics.jsonl", "prompts", "surrogates", "few_shot", "student"),
    *("bundles", "devices", "tensorboard"),
)
"""What a command appends to or writes into in a run; a link there would lead it elsewhere. Other
files are replaced, and a link with them."""
PROBE_S = 1.0
"""How long whoever works waits for the lock: `holder_of` takes it for a moment to see if it can."""


@contextlib.contextmanager
def locked(path: Path, wait_s: float = PROBE_S, hint: str = OR_ANOTHER_RUN) -> Iterator[None]:
    """Make a run directory and hold its lock.

    Raises:
        RunDirError: another process holds it for longer.
        EnvironmentLackingError: the folder cannot be used.
    """
    import filelock

    try:
        path.mkdir(parents=True, exist_ok=True)
        refuse_links(path)
        unshare(path / LOCK)  # to open it empties it
        lock = filelock.FileLock(path / LOCK)
        lock.acquire(timeout=wait_s)  # flock: the kernel frees it when a process is killed
    except filelock.Timeout as error:
        raise _in_use(path, _holder_name(path), hint) from error
    except OSError as error:
        raise EnvironmentLackingError(
            f"cannot use folder: {error.strerror}", where=str(path), hint="choose another --output"
        ) from error
    try:
        with contextlib.suppress(OSError):  # a full disk: the name only makes an error clearer
            text = f"process {os.getpid()} on {platform.node()}\n"
            write_atomically(path / HOLDER, text.encode("utf-8", "replace"))
            remove_leftovers(path)  # whoever holds the lock may tidy up
            remove_scratch_leftovers()
        yield
    finally:
        with contextlib.suppress(OSError):
            (path / HOLDER).unlink(missing_ok=True)
        lock.release()


def refuse_links(path: Path) -> None:
    """Refuse a run that would lead what is written into it to other places.

    Raises:
        RunDirError: a name that we write is a link.
    """
    for place in (path / name for name in NO_LINKS):
        if place.is_symlink():
            raise linked(place)


def linked(place: Path) -> RunDirError:
    """Say that a link lies where a run holds a file or folder of its own."""
    hint = "copy what it names into its place, or choose another --output"
    return RunDirError("is a link: nothing is written through it", where=str(place), hint=hint)


def holder_of(path: Path) -> str:
    """Name the process that works in a run directory; empty where none does."""
    import filelock

    lock = path / LOCK
    if lock.is_symlink() or not lock.is_file() or lock.stat().st_nlink > 1:
        return ""  # to open it would empty what a link names
    try:
        with filelock.FileLock(path / LOCK, timeout=0):
            return ""
    except filelock.Timeout:
        return _holder_name(path)
    except OSError:
        return ""  # a folder of someone else; whoever wants to write there is told so


def _holder_name(path: Path) -> str:
    name = ""
    with contextlib.suppress(OSError):  # it has not written its name yet
        if not (path / HOLDER).is_symlink():
            with reading(path / HOLDER) as stream:
                name = stream.read(MAX_HOLDER_BYTES).decode("utf-8", "replace").strip()
    return printable(name) or "another process"


def refuse_run_in_use(path: Path, hint: str = OR_ANOTHER_RUN) -> None:
    """Find out, before anything is loaded, whether another process works in a run directory.

    Raises:
        RunDirError: one does.
    """
    if holder := holder_of(path):
        raise _in_use(path, holder, hint)


def _in_use(path: Path, holder: str, hint: str) -> RunDirError:
    return RunDirError(f"run is in use by {holder}", where=str(path), hint=hint)
