"""Seeds: every random number comes from a generator that a stage derives from the run's seed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def derived_seed(seed: int, *names: str | int) -> int:
    """Derive a 63-bit seed from the run's seed and a path of names, such as ("distill", step)."""
    digest = hashlib.sha256("/".join(map(str, (seed, *names))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # 63 bits fit a signed integer


def stage_generator(
    seed: int, *names: str | int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Make a generator for one stage, or one step of it; equal arguments draw equal numbers.

    One on an accelerator spares a loop there the wait for numbers from the host.
    """
    import torch

    return torch.Generator(device).manual_seed(derived_seed(seed, *names))


class PartGenerator:
    """Gives some rows of a batch the numbers that they have when the batch is made at once.

    It draws for the whole batch and keeps its rows', so a batch may be made in parts of any size,
    and a part again after memory ran out.
    """

    def __init__(self, generator: torch.Generator, state: Tensor, num: int, rows: slice) -> None:
        """Begin where the batch of `num` rows begins, in the generator's `state` there."""
        self._generator, self._num, self._rows = generator, num, rows
        generator.set_state(state)
        self.device = generator.device

    def draw(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        """Draw a tensor of rows, or of the rows of all views one after the other."""
        views = shape[0] // len(range(self._num)[self._rows])
        whole = draw((views * self._num, *shape[1:]), generator=self._generator, device=self.device)
        return whole.unflatten(0, (views, self._num))[:, self._rows].flatten(0, 1)


def drawn(
    draw: Callable[..., Tensor], shape: tuple[int, ...], generator: torch.Generator | PartGenerator
) -> Tensor:
    """Draw a tensor by `torch.rand` and the like, on the generator's device."""
    if isinstance(generator, PartGenerator):
        return generator.draw(draw, shape)
    return draw(shape, generator=generator, device=generator.device)
