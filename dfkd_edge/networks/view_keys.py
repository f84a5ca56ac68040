"""Keys of views: all that is random in a view follows from 64 bits, on any device alike.

A key is drawn on the host. Its numbers are a hash of it (SplitMix64, Steele et al., OOPSLA 2014),
computed where they are needed, so that nothing waits for the host, a part of a batch has the views
that it has in the whole, and a view can be made again from its key.

Shape suffixes: N views, P numbers of each.
"""

import torch
from torch import Tensor

GAMMA, FIRST_FACTOR, SECOND_FACTOR = (
    number - (1 << 64)  # torch's integers have a sign; products wrap around all the same
    for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
FLOAT_BITS = 24  # What a float32 in [0, 1) holds


def _shifted(bits: Tensor, places: int) -> Tensor:
    """Shift right without the sign."""
    return (bits >> places) & ((1 << (64 - places)) - 1)


def _mixed(bits: Tensor) -> Tensor:
    bits = (bits ^ _shifted(bits, 30)) * FIRST_FACTOR
    bits = (bits ^ _shifted(bits, 27)) * SECOND_FACTOR
    return bits ^ _shifted(bits, 31)


def view_keys(seed: int, number_N: Tensor) -> Tensor:
    """Key of each view from a seed of 63 bits and the number of the view; int64 [N]."""
    return _mixed(number_N * GAMMA + seed)


def luck(key_N: Tensor, first: int, num: int) -> Tensor:
    """Numbers `first` to `first + num` of each key, uniform in [0, 1); float32 [N, num]."""
    column_P = torch.arange(first + 1, first + num + 1, device=key_N.device) * GAMMA
    bits_NP = _mixed(key_N[:, None] + column_P)
    return _shifted(bits_NP, 64 - FLOAT_BITS).float() * 2.0**-FLOAT_BITS


def normal_luck(key_N: Tensor, first: int, num: int) -> Tensor:
    """Give the same numbers, normal with mean 0 and deviation 1."""
    # half a step off 0, which has no finite quantile
    uniform_NP = luck(key_N, first, num) + 0.5 * 2.0**-FLOAT_BITS
    normal_NP: Tensor = torch.special.ndtri(uniform_NP)
    return normal_NP
