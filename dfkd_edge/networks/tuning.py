"""What makes CUDA faster at the price of a start that takes minutes, and of equal last bits.

Compiling fuses the many small kernels of convolutional networks; cuDNN tries its kernels for each
shape and keeps the fastest; float32 products round their factors to TF32. Off until it is measured.
"""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Embed = Callable[[Tensor], Tensor]


def compiled(embed: Embed, is_on: bool) -> Embed:
    """Compile a pass over images of one shape."""
    return torch.compile(embed, dynamic=False) if is_on else embed


@contextlib.contextmanager
def tuned_kernels(is_on: bool) -> Iterator[None]:
    """Let cuDNN try its kernels, and products use TF32, until the end."""
    cudnn, before = torch.backends.cudnn, torch.get_float32_matmul_precision()
    benchmark = cudnn.benchmark
    if is_on:
        cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        cudnn.benchmark = benchmark
        torch.set_float32_matmul_precision(before)
