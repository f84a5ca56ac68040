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


def reason_of(error: BaseException) -> str:
    """Give the first line of what a library says, else the kind of its error."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
