"""What a reader may do with a damaged input: read it rightly, or refuse it in one line.

Anything else is a fault: an exception of a library, ten seconds, a GiB of memory, a file outside of
its folder, a process, the network.
"""

import os
import platform
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from dfkd_edge.errors import DfkdEdgeError
from dfkd_edge.runtime.faults import Fault

MAX_CPU_S, MAX_GROWTH_MIB = 10.0, 1024.0
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
TOUCHES = {
    **dict.fromkeys(("os.remove", "os.rmdir", "os.mkdir", "os.truncate"), slice(1)),
    **dict.fromkeys(("os.rename", "os.link"), slice(2)),
    "os.symlink": slice(1, 2),  # where it leads is another matter: who writes there is heard
}
"""Events that change a path, and which of their details are paths that they change."""
LEAVES = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pickle.")
"""Events of Python's audit: another process, the network, code of a pickle."""
Read = Callable[[bytes, Path], object]
"""Reads an input that it may write into this empty folder first."""


class _Audit:
    """Notes what an interpreter does beside its folder; a hook of it can never be taken off."""

    def __init__(self) -> None:
        self.folder: Path | None = None  # None: nobody watches
        self.found: list[str] = []
        self._is_hooked = False

    def watch(self, folder: Path) -> None:
        if not self._is_hooked:
            platform.processor()  # asks `uname` once, whoever calls it first
            sys.addaudithook(self._hear)
            self._is_hooked = True
        self.folder, self.found = folder, []

    def _hear(self, event: str, details: tuple[object, ...]) -> None:
        if self.folder is None:
            return
        if event == "open":
            path, _, flags = details
            if isinstance(path, str | bytes) and isinstance(flags, int) and flags & WRITES:
                self._require_inside(event, path)
        elif event in TOUCHES:
            for path in details[TOUCHES[event]]:
                self._require_inside(event, path)
        elif event.startswith(LEAVES):
            self.found.append(f"{event} {details!r:.100}")

    def _require_inside(self, event: str, path: object) -> None:
        assert self.folder is not None
        if not isinstance(path, str | bytes | os.PathLike):
            return  # a descriptor, which was opened by a name
        whole = os.path.abspath(os.fsdecode(path))  # noqa: PTH100  it resolves no link
        if whole != os.devnull and not f"{whole}/".startswith(f"{self.folder}/"):
            self.found.append(f"{event} of {whole}")


_audit = _Audit()


def fault_of(read: Read, content: bytes, folder: Path) -> str:
    """Read one input in an empty folder; say in a line what must not be, empty for nothing."""
    folder.mkdir(parents=True)
    begun, before_mib = time.process_time(), _restarted_peak_mib()
    _audit.watch(folder)
    try:
        fault = _outcome(read, content, folder)
    finally:
        _audit.folder = None
    seconds, growth_mib = time.process_time() - begun, _peak_mib() - before_mib
    if _audit.found:
        return f"leaves its folder: {_audit.found[0]}"
    if seconds > MAX_CPU_S:
        return f"takes {seconds:.0f} s"
    return f"takes {growth_mib:.0f} MiB" if growth_mib > MAX_GROWTH_MIB else fault


def _outcome(read: Read, content: bytes, folder: Path) -> str:
    try:
        read(content, folder)
    except (DfkdEdgeError, Fault) as error:
        # faces escape all that is hidden but the end of a line
        return f"{place_of(error)}: several lines: {error!s:.200}" if "\n" in str(error) else ""
    except Exception as error:
        return f"{place_of(error)}: {type(error).__name__}: {error!s:.200}".replace("\n", " ")
    return ""


def place_of(error: BaseException) -> str:
    """Name the last line of the product in a traceback."""
    trace, place = error.__traceback__, "?"
    while trace:
        path = Path(trace.tb_frame.f_code.co_filename)
        if "dfkd_edge" in path.parts or "exporters" in path.parts or place == "?":
            place = f"{path.name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def _restarted_peak_mib() -> float:
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is held now
    return _peak_mib()


def _peak_mib() -> float:
    text = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s*(\d+) kB", text)
    assert found
    return int(found[1]) / 1024
