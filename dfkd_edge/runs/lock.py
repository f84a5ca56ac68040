"""The lock of a run directory: one process works in it at a time, and leaves its name."""

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from dfkd_edge.errors import EnvironmentLackingError, RunDirError

LOCK, HOLDER = ".lock", ".lock.holder"
"""Files of a run: the lock, and who holds it, for the error that another process gets."""
OR_ANOTHER_RUN = "wait for it or stop it, the same command goes on then; --output DIR makes another"
"""Hint of a command that makes a run."""
WAIT_OR_STOP = "wait for it or stop it, then run the same command again"
"""Hint of a command that works in a run."""
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
            (path / HOLDER).write_text(f"process {os.getpid()} on {platform.node()}\n", "utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):
            (path / HOLDER).unlink(missing_ok=True)
        lock.release()


def holder_of(path: Path) -> str:
    """Name the process that works in a run directory; empty where none does."""
    import filelock

    if not (path / LOCK).exists():
        return ""
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
        name = (path / HOLDER).read_text(encoding="utf-8").strip()
    return name or "another process"


def refuse_run_in_use(path: Path, hint: str = OR_ANOTHER_RUN) -> None:
    """Find out, before anything is loaded, whether another process works in a run directory.

    Raises:
        RunDirError: one does.
    """
    if holder := holder_of(path):
        raise _in_use(path, holder, hint)


def _in_use(path: Path, holder: str, hint: str) -> RunDirError:
    return RunDirError(f"run is in use by {holder}", where=str(path), hint=hint)
