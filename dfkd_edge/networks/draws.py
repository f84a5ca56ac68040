"""Random numbers of a batch that is made in parts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class PartGenerator(torch.Generator):
    """Gives some rows of a batch, through `drawn`, what they have when it is made at once.

    It draws for the whole batch and keeps its rows', so a batch may be made in parts of any size,
    and a part again after memory ran out. Whoever draws from it otherwise gets numbers that do
    depend on the parts.
    """

    num: int  # Rows of the whole batch
    rows: slice  # Those of the part

    def __new__(cls, device: torch.device) -> PartGenerator:
        """Make one on a device; `of_rows` fills it in."""
        return super().__new__(cls, device)  # type: ignore[call-arg]  # torch's stubs lack it

    @classmethod
    def of_rows(cls, whole: torch.Generator, num: int, rows: slice) -> PartGenerator:
        """Begin for some of `num` rows where the generator of all stands, which is not moved."""
        part = cls(whole.device)
        part.set_state(whole.get_state())
        part.num, part.rows = num, rows
        return part


def drawn(
    draw: Callable[..., Tensor], shape: tuple[int, ...], generator: torch.Generator
) -> Tensor:
    """Draw rows, or those of all views one after the other, by `torch.rand` and the like."""
    if not isinstance(generator, PartGenerator):
        return draw(shape, generator=generator, device=generator.device)
    num, rows = generator.num, generator.rows
    views = shape[0] // len(range(num)[rows])
    whole_shape = (views * num, *shape[1:])
    whole = draw(whole_shape, generator=generator, device=generator.device)
    of_rows: Tensor = whole.unflatten(0, (views, num))[:, rows]
    return of_rows.flatten(0, 1)
