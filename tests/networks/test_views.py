import pytest
import torch

from dfkd_edge.networks.view_keys import luck, normal_luck, view_keys
from dfkd_edge.networks.views import (
    STYLE_OPERATIONS,
    Views,
    channel_statistics,
    geometric_view,
    plan_views,
)
from dfkd_edge.seeding import stage_generator

IMAGE = torch.rand(48, 3, 24, 24, generator=torch.Generator().manual_seed(0))
CPU = torch.device("cpu")
KEYS = view_keys(0, torch.arange(48))
VIEWS = Views(32, 0.5, channel_statistics(IMAGE))


@pytest.mark.parametrize("number", range(len(STYLE_OPERATIONS)))
def test_every_style_stays_in_range_and_changes_the_image(number: int) -> None:
    operation, _ = STYLE_OPERATIONS[number]
    styled = operation(IMAGE, KEYS, VIEWS.donor_M23)
    assert styled.shape == IMAGE.shape
    assert float(styled.min()) >= 0
    assert float(styled.max()) <= 1
    assert not torch.equal(styled, IMAGE)


def test_a_view_is_a_function_of_its_image_and_its_key_whatever_else_is_in_the_batch() -> None:
    whole = VIEWS(IMAGE, VIEWS.plan(KEYS))
    assert whole.shape == (48, 3, 32, 32)
    for start, end in ((0, 24), (24, 48), (5, 6)):
        part = VIEWS(IMAGE[start:end], VIEWS.plan(KEYS[start:end]))
        torch.testing.assert_close(part, whole[start:end], rtol=0, atol=1e-6)
    order = torch.randperm(48, generator=stage_generator(0, "order"))
    shuffled = VIEWS(IMAGE[order], VIEWS.plan(KEYS[order]))
    torch.testing.assert_close(shuffled, whole[order], rtol=0, atol=1e-6)
    assert not torch.equal(VIEWS(IMAGE, VIEWS.plan(view_keys(1, torch.arange(48)))), whole)


def test_each_style_has_its_share_of_the_views_and_the_rest_has_none() -> None:
    num = 18_000
    plan = plan_views(view_keys(7, torch.arange(num)), 0.5, CPU)
    weights = [weight for _, weight in STYLE_OPERATIONS]
    expected = [0.5 * num * weight / sum(weights) for weight in weights]
    assert list(plan.counts) == pytest.approx(expected, rel=0.12)  # four deviations of the rarest
    assert sum(plan.counts) == pytest.approx(0.5 * num, rel=0.03)
    assert plan.order_N.sort().values.tolist() == list(range(num))
    assert sum(plan_views(plan.key_N, 0.0, CPU).counts) == 0


def test_numbers_of_keys_are_uniform_or_normal_and_unrelated() -> None:
    keys = view_keys(3, torch.arange(2_000))
    number = luck(keys, 0, 20)
    assert 0 <= float(number.min()) < float(number.max()) < 1
    assert number.mean(0).tolist() == pytest.approx([0.5] * 20, abs=0.03)
    assert number.var(0).tolist() == pytest.approx([1 / 12] * 20, abs=0.01)
    assert torch.equal(luck(keys, 7, 5), number[:, 7:12])
    assert float((torch.corrcoef(number.T) - torch.eye(20)).abs().max()) < 0.1
    normal = normal_luck(keys, 0, 20)
    assert float(normal.mean()) == pytest.approx(0, abs=0.02)
    assert float(normal.std()) == pytest.approx(1, abs=0.02)


def test_views_are_made_without_a_number_from_the_device() -> None:
    """The meta device has shapes alone: an operation that waited for a number of it would raise."""
    views = Views(32, 1.0, VIEWS.donor_M23.to("meta"))
    made = views(IMAGE.to("meta"), views.plan(KEYS))
    assert made.is_meta
    assert made.shape == (48, 3, 32, 32)


def test_geometry_passes_gradients_to_the_image() -> None:
    image = IMAGE.clone().requires_grad_(True)
    geometric_view(image, 24, stage_generator(0, "x")).sum().backward()
    assert image.grad is not None
    assert float(image.grad.abs().sum()) > 0
