import pytest
import torch

from dfkd_edge.networks.views import STYLE_OPERATIONS, StyleOperation, geometric_view, random_view
from dfkd_edge.seeding import stage_generator

IMAGE = torch.rand(6, 3, 24, 24, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("operation", STYLE_OPERATIONS)
def test_every_style_stays_in_range_and_changes_the_image(operation: StyleOperation) -> None:
    styled = operation(IMAGE, stage_generator(0, "x"))
    assert styled.shape == IMAGE.shape
    assert float(styled.min()) >= 0
    assert float(styled.max()) <= 1
    assert not torch.equal(styled, IMAGE)


def test_equal_seeds_give_equal_views() -> None:
    one, two, other = (random_view(IMAGE, 32, stage_generator(0, "x", n)) for n in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert one.shape == (6, 3, 32, 32)


def test_geometry_passes_gradients_to_the_image() -> None:
    image = IMAGE.clone().requires_grad_(True)
    geometric_view(image, 24, stage_generator(0, "x")).sum().backward()
    assert image.grad is not None
    assert float(image.grad.abs().sum()) > 0
