from __future__ import annotations

import torch

from dfkd_edge.mixed_precision import has_fast_bfloat16, mixed_precision


def test_convolutions_on_a_cpu_run_in_bfloat16_only_where_it_has_the_instructions() -> None:
    image = torch.rand(1, 3, 8, 8)
    with mixed_precision("cpu"):
        found = torch.nn.functional.conv2d(image, torch.rand(4, 3, 3, 3)).dtype
    assert found == (torch.bfloat16 if has_fast_bfloat16("cpu") else torch.float32)
