"""A run directory that several ranks work in: the first one locks it and writes, the rest read."""

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from dfkd_edge.errors import EnvironmentLackingError
from dfkd_edge.files import file_hash
from dfkd_edge.machine.ranks import Ranks
from dfkd_edge.runs.lock import PROBE_S
from dfkd_edge.runs.run_dir import RunDir, open_run
from dfkd_edge.runtime.faults import MANIFEST

TOKEN = ".token"
"""File that every rank must see where the first one has written it."""
VISIBLE_S = 60.0
"""How long another machine may see an old state of a file: as long as NFS may keep one."""
POLL_S = 0.05


class FollowedRun(RunDir):
    """The run as every rank but the first sees it: what they would note, the first one notes."""

    def append_metrics(self, stage: str, step: int, values: dict[str, float]) -> None:
        """Leave it to the first rank."""

    def log(self, text: str) -> None:
        """Leave it to the first rank."""


@contextlib.contextmanager
def open_shared_run(
    path: Path,
    run_key: str,
    ranks: Ranks,
    *,
    resume: bool,
    exist_ok: bool,
    wait_s: float = PROBE_S,
) -> Iterator[RunDir]:
    """Open a run as `open_run` does, on the first rank, and follow it on the others.

    Raises:
        RunDirError: as `open_run`.
        EnvironmentLackingError: a rank does not see what the first one writes.
    """
    if not ranks.is_first:
        require_shared(path, ranks)
        yield FollowedRun(path)
        return
    with open_run(path, run_key, resume=resume, exist_ok=exist_ok, wait_s=wait_s) as run_dir:
        require_shared(path, ranks)
        yield run_dir


def require_shared(path: Path, ranks: Ranks) -> None:
    """Check that all ranks see one directory; every rank raises where one does not.

    Raises:
        EnvironmentLackingError: a rank does not see what the first one writes.
    """
    if ranks.count == 1:
        return
    file, token = path / TOKEN, secrets.token_hex(8)
    if ranks.is_first:
        file.write_text(token, encoding="utf-8")
    token = ranks.tell(token)
    blind = [name for name in ranks.gather("" if _shows(file, token) else ranks.name) if name]
    if ranks.is_first:
        file.unlink()
    if blind:
        raise EnvironmentLackingError(
            f"{blind[0]} does not see the run directory of rank 0",
            where=str(path),
            hint="choose an --output on a file system that all machines share",
        )


def _shows(file: Path, text: str) -> bool:
    until = time.monotonic() + VISIBLE_S
    while time.monotonic() < until and file.parent.exists():
        with contextlib.suppress(OSError):
            if file.read_text(encoding="utf-8") == text:
                return True
        time.sleep(POLL_S)
    return False


def manifest_hash(path: Path) -> str:
    """Hash the manifest of a run, which names what its stages have written."""
    return file_hash(path / MANIFEST)


def await_manifest(path: Path, known: str, name: str) -> None:
    """Wait until this rank sees the manifest that the first one has written.

    Raises:
        EnvironmentLackingError: it still sees another one after a minute.
    """
    await_file(path / MANIFEST, known, name)


def await_file(file: Path, known: str, name: str) -> None:
    """Wait until this rank sees the file of that hash that the first one has written.

    Raises:
        EnvironmentLackingError: as `await_seen`.
    """
    await_seen(file, lambda: file.is_file() and file_hash(file) == known, name)


def await_seen(file: Path, is_seen: Callable[[], bool], name: str, writer: str = "rank 0") -> None:
    """Wait until this rank, whose name is given, sees what another one has written.

    Raises:
        EnvironmentLackingError: it does not after a minute.
    """
    until = time.monotonic() + VISIBLE_S
    while not is_seen():
        if time.monotonic() > until:
            what = f"{name} does not see what {writer} has written for {VISIBLE_S:.0f} s"
            hint = "see whether both have the same file system there; the same command goes on"
            raise EnvironmentLackingError(what, where=str(file), hint=hint)
        time.sleep(POLL_S)
