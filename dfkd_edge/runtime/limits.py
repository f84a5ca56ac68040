"""How much memory and time a graph or picture from elsewhere may take.

A few bytes of a graph can ask for a tensor that fills the memory: then the kernel kills whoever it
likes. Here the request alone fails.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any, ClassVar, TypeVar

Result = TypeVar("Result")
GRAPH_SHARE = 0.75  # Of the memory that is free, for a graph (ours)
MAX_RUN_S = 300.0  # Of one batch: the largest student on the slowest board takes seconds
WATCH_EVERY_S = 1.0
_ARENA_LOCK = threading.Lock()
_arenas: list[int] = []  # Bytes of the one that this process shares; empty before the first graph


def free_bytes(root: Path = Path("/")) -> int | None:
    """Memory that can be taken without swapping; None where the system does not say."""
    try:
        text = (root / "proc/meminfo").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^MemAvailable:\s*(\d+) kB", text, re.MULTILINE)
    return int(found.group(1)) << 10 if found else None


@contextlib.contextmanager
def memory_bounded() -> Iterator[None]:
    """Let allocations fail that would take more than is free; for work that asks no arena.

    The bound is of addresses, beyond those that the process has now.
    """
    free = free_bytes()
    try:
        import resource

        taken = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
    except (ImportError, OSError):  # Windows, macOS
        free = None
    if free is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = taken * resource.getpagesize() + int(free * GRAPH_SHARE)
    if soft != resource.RLIM_INFINITY:
        limit = min(limit, soft)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def use_bounded_arena(onnxruntime: Any, options: Any) -> None:
    """Let a session take its tensors from an arena of this process that ends before the memory."""
    with _ARENA_LOCK:
        free = free_bytes()
        if not _arenas and free is not None and hasattr(onnxruntime, "OrtArenaCfg"):
            arena = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
            kind = onnxruntime.OrtMemType.DEFAULT
            memory = onnxruntime.OrtMemoryInfo("Cpu", arena, 0, kind)
            most = int(free * GRAPH_SHARE)
            onnxruntime.create_and_register_allocator(
                memory, onnxruntime.OrtArenaCfg({"max_mem": most})
            )
            _arenas.append(most)
    if _arenas:
        options.add_session_config_entry("session.use_env_allocators", "1")


def within(max_s: float, work: Callable[[], Result]) -> Result:
    """Let a library work for so long; what takes longer goes on in a thread that nobody waits for.

    A load computes what depends on no input, and one node may take days: neither can be ended.

    Raises:
        TimeoutError: it takes longer.
    """
    future: futures.Future[Result] = futures.Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # raised where it is waited for
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return future.result(max_s)
    except futures.TimeoutError as error:
        raise TimeoutError(f"it takes more than {max_s:g} s") from error


class Deadline:
    """Ends a run of onnxruntime that takes too long, between two of its nodes.

    One thread watches all of them: a timer a run would cost the run time.
    """

    _watched: ClassVar[weakref.WeakSet[Deadline]] = weakref.WeakSet()
    _thread: ClassVar[threading.Thread | None] = None

    def __init__(self, options: Any, max_s: float = MAX_RUN_S) -> None:
        """Watch runs that get these `RunOptions`."""
        self._options, self._max_s = options, max_s
        self._began: float | None = None
        self._watched.add(self)
        if Deadline._thread is None:
            Deadline._thread = threading.Thread(target=Deadline._watch, daemon=True)
            Deadline._thread.start()

    def __enter__(self) -> Any:
        """Start the clock and return the options."""
        self._began = time.monotonic()
        return self._options

    def __exit__(self, *_error: object) -> None:
        """Stop the clock."""
        self._began = None

    @classmethod
    def _watch(cls) -> None:
        while True:
            time.sleep(WATCH_EVERY_S)
            for deadline in list(cls._watched):
                began = deadline._began
                if began is not None and time.monotonic() - began > deadline._max_s:
                    deadline._options.terminate = True
