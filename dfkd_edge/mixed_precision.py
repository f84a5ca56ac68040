"""Mixed precision where it pays: bfloat16 on accelerators and on CPUs that compute in it.

A CPU without bfloat16 instructions emulates them: a convolution then takes about fifty times longer
than in float32, so such CPUs stay in float32.
"""

from __future__ import annotations

import torch


def has_fast_bfloat16(device_type: str) -> bool:
    """Whether this kind of device computes in bfloat16 natively."""
    if device_type == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return device_type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


def mixed_precision(device_type: str) -> torch.autocast:
    """Autocast to bfloat16, switched off where the device would emulate it."""
    return torch.autocast(device_type, torch.bfloat16, enabled=has_fast_bfloat16(device_type))
