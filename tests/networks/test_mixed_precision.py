import torch
from torch import nn

from dfkd_edge.networks.mixed_precision import (
    depthwise_in_float32,
    has_fast_bfloat16,
    mixed_precision,
)


def test_convolutions_on_a_cpu_run_in_bfloat16_only_where_it_has_the_instructions() -> None:
    image = torch.rand(1, 3, 8, 8)
    with mixed_precision("cpu"):
        found = torch.nn.functional.conv2d(image, torch.rand(4, 3, 3, 3)).dtype
    assert found == (torch.bfloat16 if has_fast_bfloat16("cpu") else torch.float32)


def test_depthwise_convolutions_of_a_cpu_stay_in_float32_and_are_as_before_afterwards() -> None:
    torch.manual_seed(0)
    depthwise = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8)
    network = nn.Sequential(nn.Conv2d(3, 8, 1), depthwise)
    names = list(network.state_dict())
    image = torch.rand(2, 3, 9, 9)
    seen: list[torch.dtype] = []
    depthwise.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with depthwise_in_float32(network, "cuda"):  # only CPUs with bfloat16 need it
        assert "forward" not in vars(depthwise)
    with depthwise_in_float32(network, "cpu"), mixed_precision("cpu"):
        assert ("forward" in vars(depthwise)) is has_fast_bfloat16("cpu")
        kept = network(image)
        kept.sum().backward()
    assert seen == [torch.float32]
    assert depthwise.weight.grad is not None
    assert list(network.state_dict()) == names
    assert "forward" not in vars(depthwise)
    torch.testing.assert_close(kept, network(image), rtol=0.02, atol=0.02)
