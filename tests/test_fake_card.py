"""The fake accelerator itself: what it refuses, what it counts, and that its memory ends."""

import pytest
import torch

from dfkd_edge.errors import EnvironmentLackingError
from dfkd_edge.networks.memory import Parts, in_parts
from dfkd_edge.networks.transfer import sent
from tests.fixtures.fake_card import DEVICE
from tests.fixtures.fake_device import fake_accelerator


def test_what_lies_on_a_wrong_device_raises() -> None:
    with fake_accelerator() as gpu:
        here, there = torch.rand(2), torch.rand(2, device=gpu.device)
        with pytest.raises(RuntimeError, match="same device"):
            here + there
        with pytest.raises(RuntimeError, match="a generator on cpu for a tensor on gpu"):
            torch.rand(2, generator=torch.Generator(), device=gpu.device)
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        assert torch.rand(2, generator=torch.Generator(DEVICE), device=DEVICE).device == gpu.device


def test_a_wait_for_the_device_is_counted() -> None:
    with fake_accelerator() as gpu:
        value, host = torch.rand(2, device=gpu.device), torch.arange(2)
        asked = gpu.waits_of(lambda: (float(value[0]), value.cpu(), value[value > 0]))
        sent_as_it_is = gpu.waits_of(lambda: (host.to(gpu.device), value[host], value.copy_(host)))
        assert not gpu.waits_of(lambda: value[sent(host, gpu.device)])
    assert asked == {"number": 1, "copy to the host": 1, "index by a mask": 1}
    assert sent_as_it_is == {"copy of pageable memory": 2, "index from the host": 1}


def test_a_card_that_is_full_is_worked_on_in_halves_and_one_too_small_is_an_error() -> None:
    with fake_accelerator() as gpu:
        gpu.resize(1.1)

        def square(rows: slice) -> float:
            image = torch.rand(rows.stop - rows.start, 2**26, device=gpu.device)  # 256 MiB each
            return float((image * image).sum())

        parts = Parts("squaring", 8, DEVICE)
        assert len(in_parts(8, parts, square)) == 4
        assert parts.size == 2
        gpu.resize(0.3)
        with pytest.raises(EnvironmentLackingError, match=r"a fake card with 0\.3 GiB has too"):
            in_parts(1, parts, square)


def test_a_backward_pass_before_the_card_was_there_does_not_hide_it() -> None:
    torch.ones(1, requires_grad=True).sum().backward()  # of another test of this process
    with fake_accelerator() as gpu:
        value = torch.rand(2, device=gpu.device, requires_grad=True)
        value.sum().backward()
        assert value.grad is not None
        assert value.grad.device == gpu.device
