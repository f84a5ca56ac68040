import numpy as np
import pytest
import torch

from dfkd_edge.seeding import stage_generator
from dfkd_edge.synthesis.guidance import augmented_views, matching_loss, recognised, total_variation


def test_matching_loss_is_the_squared_geodesic_distance() -> None:
    east, north = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert float(matching_loss(east, east)) == pytest.approx(0, abs=1e-6)
    assert float(matching_loss(east, north)) == pytest.approx(2 * (np.pi / 4) ** 2, rel=1e-4)


def test_every_image_has_as_many_views_and_no_two_are_alike() -> None:
    image = torch.rand(2, 3, 24, 24, generator=stage_generator(0, "image"))
    views = augmented_views(image, 3, 16, stage_generator(0, "views"))
    assert views.shape == (6, 3, 16, 16)
    flat = views.flatten(1)
    assert float(torch.pdist(flat).min()) > 0.5


def test_total_variation_is_none_on_a_plain_image_and_full_on_stripes() -> None:
    stripes = torch.tensor([0.0, 1.0]).repeat(4).expand(1, 3, 8, 8)
    assert float(total_variation(torch.full((1, 3, 8, 8), 0.3))) == 0
    assert float(total_variation(stripes)) == pytest.approx(1)


def test_a_margin_asks_the_class_to_lead() -> None:
    logits = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.4, 0.6]]).log()
    label = torch.zeros(3, dtype=torch.long)
    assert recognised(logits, label, 0.0).tolist() == [True, True, False]
    assert recognised(logits, label, 0.5).tolist() == [True, False, False]
    assert recognised(logits[:, :1], label, 0.5).all()  # a list of one class has no second one
