"""Ranks: the processes that torchrun, accelerate or srun start for one command, as one group.

Texts and waiting go over gloo, which sleeps while it waits and learns at once of a peer that is
gone; gradients go over NCCL between CUDA cards, else over gloo. A process alone is a group of one,
and loads nothing of torch.distributed.

Shape suffixes: G all gradients of a network in a row.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from dfkd_edge.errors import RankLostError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed.distributed_c10d import ProcessGroup, Store

STEP_S = 600.0
"""How long a rank waits for the gradients of the others; a checkpoint may lie in between."""
STAGE_S = 24 * 3600.0
"""How long ranks wait at the end of a stage. One that has ended is missed at once: this is for one
that hangs, and longer than one machine falls behind another."""


class Ranks:
    """A group, as one of its processes sees it."""

    def __init__(self, index: int = 0, count: int = 1, store: Store | None = None) -> None:
        """Wrap the place in a group that `joined` has opened."""
        self.index, self.count = index, count
        self._store, self._num_texts = store, 0
        self._of_steps: ProcessGroup | None = None
        self._of_gradients: ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """Whether this rank writes and speaks for all."""
        return self.index == 0

    @property
    def name(self) -> str:
        """Say which rank this is, and where."""
        return f"rank {self.index} on {platform.node()}"

    def wait(self) -> None:
        """Wait until every rank has come here."""
        if self.count > 1:
            from torch import distributed, zeros

            with hearing_the_others():
                distributed.all_reduce(zeros(1))

    def gather(self, text: str) -> list[str]:
        """Return a text of each rank, on all ranks."""
        if self._store is None:
            return [text]
        self._num_texts += 1
        with hearing_the_others():
            self._store.set(f"{self._num_texts}/{self.index}", text)
            self.wait()
            keys = [f"{self._num_texts}/{index}" for index in range(self.count)]
            return [self._store.get(key).decode() for key in keys]

    def tell(self, text: str = "") -> str:
        """Return the text of the first rank, on all ranks."""
        return self.gather(text if self.is_first else "")[0]

    def any_of(self, is_so: bool) -> bool:
        """Whether something is so on at least one rank."""
        return any(self.gather("so" if is_so else ""))

    def any_in_step(self, is_so: bool) -> bool:
        """As `any_of`, at less cost and with less patience: for every step of a training."""
        if self.count == 1:
            return is_so
        from torch import distributed, tensor

        flag = tensor(float(is_so))
        with hearing_the_others():
            distributed.all_reduce(flag, group=self._of_steps)
        return bool(flag)

    def part_of(self, num: int) -> slice:
        """Return this rank's part of `num` things; parts follow each other, some one longer."""
        return part_of(num, self.index, self.count)

    def connect(self, device_type: str) -> None:
        """Open the ways of a training's steps, once this rank's device is set."""
        if self.count > 1:
            self._of_steps = self._of_gradients = _new_group("gloo")
            if device_type == "cuda":
                self._of_gradients = _new_group("nccl")

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Put the sum over all ranks into each tensor, in one message for all of a type."""
        if self.count == 1:
            return
        from torch import cat, distributed

        for kind in dict.fromkeys(tensor.dtype for tensor in tensors):
            alike = [tensor for tensor in tensors if tensor.dtype == kind]
            flat_G = cat([tensor.reshape(-1) for tensor in alike])
            with hearing_the_others():
                distributed.all_reduce(flat_G, group=self._of_gradients)
            sums = flat_G.split([tensor.numel() for tensor in alike])
            for tensor, summed in zip(alike, sums, strict=True):
                tensor.copy_(summed.view_as(tensor))

    def add_up_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Sum the gradients of parameters over all ranks; a rank without images has none."""
        from torch import no_grad, zeros_like

        if self.count == 1:
            return
        with no_grad():
            wanted = [parameter for parameter in parameters if parameter.requires_grad]
            for parameter in wanted:
                if parameter.grad is None:
                    parameter.grad = zeros_like(parameter)
            self.add_up([parameter.grad for parameter in wanted if parameter.grad is not None])

    def sum_in_order(self, num_parts: int, make: Callable[[int], Tensor], like_G: Tensor) -> Tensor:
        """Sum `make(0) + make(1) + ...`, of which each rank makes some.

        The order of the sum is that of the parts, whoever makes them: 1, 2 and 3 ranks give equal
        bits where the parts are equal. `like_G` has the shape of a part.
        """
        from torch import distributed, empty_like, zeros_like

        total_G = zeros_like(like_G)
        for first in range(0, num_parts, self.count):
            number = first + self.index
            mine_G = make(number) if number < num_parts else zeros_like(like_G)
            parts = [mine_G]
            if self.count > 1:
                parts = [empty_like(like_G) for _ in range(self.count)]
                with hearing_the_others():
                    distributed.all_gather(parts, mine_G, group=self._of_gradients)
            for part_G in parts[: num_parts - first]:
                total_G += part_G
        return total_G


def _new_group(backend: str) -> ProcessGroup:
    from torch import distributed

    with hearing_the_others():
        group = distributed.new_group(backend=backend, timeout=timedelta(seconds=STEP_S))
    assert isinstance(group, distributed.ProcessGroup)  # a number for whom it leaves out
    return group


def part_of(num: int, index: int, count: int) -> slice:
    """Return the part of one of `count` among `num` things: none is two longer than another."""
    return slice(num * index // count, num * (index + 1) // count)


@contextlib.contextmanager
def hearing_the_others() -> Iterator[None]:
    """Turn what torch says of a broken group into one line.

    Raises:
        RankLostError: another rank has ended, or has not answered for the time of its group.
    """
    try:
        yield
    except RuntimeError as error:  # of gloo, NCCL and the store alike
        if type(error).__name__ == "OutOfMemoryError":  # ours, of a buffer for the others' numbers
            raise
        hung = "Timed out" in str(error) or "timeout" in str(error).lower()
        what = "another rank no longer answers" if hung else "another rank has ended, or was killed"
        hint = "nothing that is done is lost, the same command goes on"
        raise RankLostError(what, hint=hint) from error


ALONE = Ranks()
"""A process that nobody started beside others."""
