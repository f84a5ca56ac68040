"""Seeds: every random number comes from a generator that a stage derives from the run's seed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


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
