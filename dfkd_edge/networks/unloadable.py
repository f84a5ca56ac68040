"""What libraries raise on weights and settings that are damaged or of another kind."""

import pickle
import struct

from safetensors import SafetensorError

UNLOADABLE = (
    *(OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError),
    *(EOFError, MemoryError, RecursionError, ArithmeticError),
    *(pickle.UnpicklingError, struct.error, SafetensorError),
)
"""Of open_clip, diffusers, timm, torch and safetensors, whose errors share no base class."""


MAX_LINE = 300  # Characters: torch lists every key that is missing


def reason_of(error: BaseException) -> str:
    """Give the first line of what a library says, and those it announces; else the error's kind."""
    first, *rest = str(error).strip().splitlines() or [type(error).__name__]
    while first.endswith(":") and rest:  # torch's `Error(s) in loading state_dict for CLIP:`
        first += f" {rest.pop(0).strip()[:MAX_LINE]}"
    return first
