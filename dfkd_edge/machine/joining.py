"""Joining the ranks of a command and leaving them: one of them speaks, whatever fails."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from dfkd_edge.errors import EnvironmentLackingError
from dfkd_edge.machine.interruption import Terminated
from dfkd_edge.machine.process import prepare_host
from dfkd_edge.machine.ranks import ALONE, STAGE_S, Ranks

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

JOIN_S = 600.0
"""How long ranks wait for each other at the start: a batch system starts its nodes apart."""
WORD_S = 2.0
"""How long a rank that fails lets the first one speak, which may have failed alike."""
POLL_S = 0.05
UNWIND_S = 20.0
"""How long a rank that is told to stop may take. It may be waiting for one that hangs, and then
hears no signal; torchrun and Slurm kill it after 30 s."""
ENVIRONMENT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
TERMINATED = 128 + signal.SIGTERM


def in_group() -> bool:
    """Whether this process was started as one of several."""
    return all(name in os.environ for name in ENVIRONMENT) and int(os.environ["WORLD_SIZE"]) > 1


def is_first_of_group() -> bool:
    """Whether this process is alone, or the first of several."""
    return not in_group() or os.environ["RANK"] == "0"


@contextlib.contextmanager
def joined() -> Iterator[Ranks]:
    """Join the other processes of this command, if there are any, and leave them in the end.

    What ends one rank ends all. The user reads one line, and every rank leaves with its exit code.

    Raises:
        EnvironmentLackingError: the others do not come.
        RankLostError: another one has ended, and nobody has said why.
    """
    if not in_group():
        yield ALONE
        return
    cores = os.sched_getaffinity(0)  # the first rank may go on alone
    ranks, words = _join()
    with leaving_when_told(ranks, words):
        try:
            yield ranks
            ranks.wait()  # the first one keeps the store that the others read from
        except BaseException as error:
            for number in (signal.SIGINT, signal.SIGTERM):  # what ends us is known
                signal.signal(number, signal.SIG_IGN)
            if takes_word(ranks, words):
                _let_others_hear(ranks, words)
                raise _by_name(error, ranks) from error.__cause__
            raise SystemExit(_exit_code(error)) from None
    from torch import distributed

    distributed.destroy_process_group()
    os.sched_setaffinity(0, cores)


def _join() -> tuple[Ranks, Store]:
    """Return the group, and a connection of its own for the words of those that fail."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # it tells at length of lost peers
    if os.environ.get("OMP_NUM_THREADS") == "1":
        del os.environ["OMP_NUM_THREADS"]  # torchrun's: cores are shared out once all are here
    prepare_host()
    from torch import distributed
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    patience = timedelta(seconds=JOIN_S)
    try:
        store, index, count = next(rendezvous("env://", timeout=patience))
        own = PrefixStore("dfkd-edge", store)
        distributed.init_process_group(
            "gloo", store=own, rank=index, world_size=count, timeout=timedelta(seconds=STAGE_S)
        )
    except (RuntimeError, ValueError) as error:
        what = f"rank {os.environ['RANK']} does not reach the others: {str(error).splitlines()[0]}"
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        hint = "start all of them, with one address and one number of ranks"
        raise EnvironmentLackingError(what, where=where, hint=hint) from error
    return Ranks(index, count, own), own.clone()


def takes_word(ranks: Ranks, words: Store) -> bool:
    """Whether this rank says why all end: the first one where it can, else whoever asks first."""
    try:
        if (ranks.is_first or not _is_taken(words)) and words.add("word", 1) == 1:
            return True
        words.add("heard", 1)
        return False
    except RuntimeError:  # the rank that kept the store is gone, and with it the first one
        return ranks.index <= 1


def _let_others_hear(ranks: Ranks, words: Store) -> None:
    """Stay until the others know that one has spoken, where the store would go with this rank."""
    if not ranks.is_first or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return
    from torch import distributed

    with contextlib.suppress(RuntimeError):
        distributed.destroy_process_group()  # what they wait for here fails now
        until = time.monotonic() + WORD_S
        while words.add("heard", 0) < ranks.count - 1 and time.monotonic() < until:
            time.sleep(POLL_S)


def _is_taken(words: Store) -> bool:
    until = time.monotonic() + WORD_S
    while not words.check(["word"]):
        if time.monotonic() > until:
            return False
        time.sleep(POLL_S)
    return True


def _exit_code(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    codes = {
        Terminated: TERMINATED,
        KeyboardInterrupt: 128 + signal.SIGINT,
        OSError: EnvironmentLackingError.exit_code,
    }
    of_kind = next((code for kind, code in codes.items() if isinstance(error, kind)), 1)
    return int(getattr(error, "exit_code", of_kind))


def _by_name(error: BaseException, ranks: Ranks) -> BaseException:
    """Say of an error which rank met it, where it is not the first."""
    if ranks.is_first or isinstance(error, KeyboardInterrupt | SystemExit):
        return error
    if isinstance(error, OSError):
        error.strerror = f"{ranks.name}: {error.strerror or error}"
    else:
        error.args = (f"{ranks.name}: {error}", *error.args[1:])
    return error


@contextlib.contextmanager
def leaving_when_told(ranks: Ranks, words: Store) -> Iterator[None]:
    """End this process when SIGTERM comes while it hears nothing, in torch's own code."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    left = threading.Event()

    def watch() -> None:
        while data := ours.recv(1):  # the number of the signal; nothing when the other end is shut
            if data[0] == signal.SIGTERM and not left.wait(UNWIND_S):
                if takes_word(ranks, words):
                    line = "stopped while waiting for other ranks; what is done is kept"
                    sys.stderr.write(f"\n{line}; the same command goes on\n")
                os._exit(TERMINATED)

    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        signal.set_wakeup_fd(before)
        theirs.close()
        thread.join()
        ours.close()
