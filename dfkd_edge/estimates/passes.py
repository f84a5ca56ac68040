"""Laps of the stages of a small run, memory of the gradients of a pass."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from dfkd_edge.networks.memory import measured_need
from dfkd_edge.networks.mixed_precision import mixed_precision


class Stopwatch:
    """A reporter that takes the laps of each stage: its steps, then what follows the last one."""

    def __init__(self) -> None:
        """Start without a stage."""
        self.laps_s: dict[str, list[float]] = {}
        self._of_stage: list[float] = []
        self._last_s = 0.0

    @contextlib.contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Iterator[Stopwatch]:
        """Take the laps of a stage."""
        self._of_stage = self.laps_s[name] = []
        self._last_s = time.perf_counter()
        yield self
        self.advance()

    def advance(self, count: int = 1, note: str = "") -> None:
        """End a lap."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # a step that was only queued took no time yet
        now_s = time.perf_counter()
        self._of_stage.append(now_s - self._last_s)
        self._last_s = now_s

    def note(self, text: str) -> None:
        """Say nothing."""


def gradient_bytes(run: Callable[[Tensor], Tensor], shape: tuple[int, ...], device: str) -> int:
    """Bytes that an input takes while gradients are found; what all share is left out."""

    def attempt(num: int) -> None:
        with mixed_precision(torch.device(device).type):
            inputs = torch.zeros(num, *shape, device=device, requires_grad=True)
            made = run(inputs).sum()
        torch.autograd.grad(made, inputs)  # leaves no gradients behind, which the next would find

    return measured_need(attempt, device).of_image
