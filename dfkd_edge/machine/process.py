"""Memory, threads and device of a process, settled before its first tensor."""

import contextlib
import ctypes
import logging
import os
import platform
import sys
import warnings
from collections.abc import Iterator

from dfkd_edge.errors import EnvironmentLackingError, UsageError
from dfkd_edge.machine.ranks import ALONE, Ranks, part_of

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


def give_back_memory() -> None:
    """Return to the kernel what glibc keeps: the next stage needs buffers of other sizes."""
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def prepare_host() -> None:
    """Settle what must be settled before torch is imported."""
    keep_freed_memory()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads sleep: none spins on a core
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # sums in one order, 32 MiB


def prepare_process(device: str, num_threads: int | None, ranks: Ranks = ALONE) -> None:
    """Settle memory, threads (None takes all cores) and device of a process, or of each rank.

    Raises:
        EnvironmentLackingError: the device cannot be used, or two ranks would share a card.
    """
    prepare_host()
    import torch

    if device == "cuda" and "LOCAL_RANK" in os.environ:  # of torchrun, or a batch system
        device = f"cuda:{os.environ['LOCAL_RANK']}"  # a context on card 0 would cost every rank
    refuse_shared_cards(device, ranks)
    check_device(device)
    if device.startswith("cuda:"):
        torch.cuda.set_device(device)  # what `cuda` alone means from here on
    share_out_cores(device, num_threads, ranks)
    ranks.connect(torch.device(device).type)


def refuse_shared_cards(device: str, ranks: Ranks) -> None:
    """Check that every rank has a card of its own, before one opens a context.

    Raises:
        EnvironmentLackingError: two ranks of a machine take the same one.
    """
    if not device.startswith("cuda"):
        return
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "all cards")
    cards = ranks.gather(f"{platform.node()}, {device} of {seen}")
    twice = [card for card in cards if cards.count(card) > 1]
    if twice:
        raise EnvironmentLackingError(
            f"{cards.count(twice[0])} ranks would share one card",
            where=twice[0],
            hint="start one rank a card, with --device cuda, which takes each its own",
        )


def share_out_cores(device: str, num_threads: int | None, ranks: Ranks) -> None:
    """Set the threads of a process; ranks of a machine get their share of its cores.

    On the CPU each rank keeps as many threads as the first would have alone, on fewer cores: their
    number changes the order of some sums (1x1 convolutions among them), and so the last bits of
    images. Threads of one core run one after another, which costs nothing (measured). A GPU's sums
    do not depend on the host's threads, of which there are just fewer.
    """
    import torch

    if ranks.count == 1:
        if num_threads:
            torch.set_num_threads(num_threads)
        return
    num_threads = int(ranks.tell(str(num_threads or torch.get_num_threads())))
    cores = sorted(os.sched_getaffinity(0))
    places = ranks.gather(f"{platform.node()} {cores}")  # srun may have shared them out already
    beside = [index for index, place in enumerate(places) if place == places[ranks.index]]
    ours = part_of(len(cores), beside.index(ranks.index), len(beside))
    if device == "cpu":
        torch.set_num_threads(num_threads)
        os.sched_setaffinity(0, cores[ours] or {cores[ranks.index % len(cores)]})
    else:
        torch.set_num_threads(max(1, num_threads // len(beside)))


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
        UsageError: no device has such a name.
    """
    import torch

    try:
        torch.device(device)
    except RuntimeError as error:
        hint = "cpu, cuda or cuda:1"
        raise UsageError(f"no device '{device}'", where="--device", hint=hint) from error
    try:
        torch.zeros(1, device=device).cpu()  # `meta` has no numbers to read
    except (RuntimeError, AssertionError) as error:  # an assertion where torch lacks CUDA
        why, *_ = str(error).splitlines()[0].split(". ")  # torch goes on with all its backends
        what = f"device '{device}' cannot be used: {why}"
        raise EnvironmentLackingError(what, where="--device", hint="use --device cpu") from error


def usable_device(device: str) -> str:
    """Return the device of a run where it can be used here, else the CPU."""
    try:
        check_device(device)
    except EnvironmentLackingError:
        return "cpu"
    return device
