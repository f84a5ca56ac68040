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


UNPICKLER = "WeightsUnpickler error:"  # Of torch, before what it found
MAX_REASON = 300  # Characters: a state of other layers names each of them


def reason_of(error: BaseException) -> str:
    """Give the line of a library's message that says why, else the kind of its error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = lines or [type(error).__name__]
    refused = next((line for line in lines if UNPICKLER in line), "")
    if refused:  # torch speaks at length of its options first
        why = refused.partition(UNPICKLER)[2].strip().partition(" by default")[0]
        return f"its weights are not tensors alone: {why[:MAX_REASON]}"
    # "Error(s) in loading state_dict for CLIP:" says nothing without the next line
    reason = " ".join(lines[: 2 if lines[0].endswith(":") else 1])
    return reason if len(reason) <= MAX_REASON else f"{reason[:MAX_REASON]}..."
