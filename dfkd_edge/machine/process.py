"""Memory, threads and device of a process, settled before its first tensor; ranks of torchrun."""

import contextlib
import ctypes
import logging
import os
import platform
import sys
import warnings
from collections.abc import Iterator

from dfkd_edge.errors import EnvironmentLackingError

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # Of glibc's malloc.h


def keep_freed_memory() -> None:
    """Let glibc reuse large buffers instead of returning each one to the kernel.

    Without it, page faults take about 40 % of the time of a training step on a CPU.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(M_MMAP_MAX, 0)  # a buffer that has its own mapping is unmapped when it is freed
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)  # the largest C int: never give the top of the heap back
    mallopt(M_ARENA_MAX, 1)  # what one thread has freed, another one can take


def prepare_host() -> None:
    """Settle what must be settled before torch is imported."""
    keep_freed_memory()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads sleep: none spins on a core
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # sums in one order, 32 MiB


def prepare_process(device: str, num_threads: int | None) -> None:
    """Settle memory, threads (None takes all cores) and device, also of torchrun's processes.

    Raises:
        EnvironmentLackingError: the device cannot be used.
    """
    prepare_host()
    import torch

    if device == "cuda" and "LOCAL_RANK" in os.environ:  # of torchrun, or a batch system
        device = f"cuda:{os.environ['LOCAL_RANK']}"  # a context on card 0 would cost every rank
    check_device(device)
    if is_of_torchrun():
        # torchrun gives each process one thread, which changes the order of some sums: its
        # images would differ in their last bits from those of a process alone.
        num_threads = num_threads or len(os.sched_getaffinity(0))
    if num_threads:
        torch.set_num_threads(num_threads)
    if device.startswith("cuda:"):
        torch.cuda.set_device(device)  # what `cuda` alone means from here on


@contextlib.contextmanager
def muted(level: int) -> Iterator[None]:
    """Run a library without its warnings, and without its logs up to a level.

    open_clip logs through the root logger, and warns of an activation before it reads the option
    that sets it; torch's exporter logs what it goes on to mend.
    """
    before = logging.root.manager.disable  # of the program that calls us
    logging.disable(max(before, level))
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


def check_device(device: str) -> None:
    """Refuse a torch device that cannot be used.

    Raises:
        EnvironmentLackingError: it is not there, or torch was built without it.
    """
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # an assertion where torch lacks CUDA
        what = f"device '{device}' cannot be used: {str(error).splitlines()[0]}"
        raise EnvironmentLackingError(what, where="--device", hint="use --device cpu") from error


def usable_device(device: str) -> str:
    """Return the device of a run where it can be used here, else the CPU."""
    try:
        check_device(device)
    except EnvironmentLackingError:
        return "cpu"
    return device


def rank() -> int:
    """Number of this process among those of torchrun; 0 without it."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes torchrun has started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_of_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def speaks() -> bool:
    """Whether this process closes the stage and prints the outcome."""
    return rank() == 0 or not is_of_torchrun()
