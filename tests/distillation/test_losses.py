import pytest
import torch

from dfkd_edge.distillation.step import feature_distances, soft_target_loss


def test_losses_vanish_when_both_agree_and_opposite_features_are_at_two() -> None:
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    unit = torch.nn.functional.normalize(logits, dim=1)
    assert float(soft_target_loss(logits, logits, 3.0)) == pytest.approx(0, abs=1e-6)
    assert feature_distances(unit, unit).tolist() == pytest.approx([0] * 4, abs=1e-6)
    assert feature_distances(unit, -unit).tolist() == pytest.approx([2] * 4)


def test_soft_target_loss_is_the_mean_kl_of_an_image_times_temperature_squared() -> None:
    student, teacher = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    p, q = (teacher / 2).softmax(1), (student / 2).softmax(1)
    expected = 4 * float((p * (p / q).log()).sum())
    assert float(soft_target_loss(student, teacher, 2.0)) == pytest.approx(expected, rel=1e-5)
    twice = torch.cat((student, student)), torch.cat((teacher, teacher))
    assert float(soft_target_loss(*twice, 2.0)) == pytest.approx(expected, rel=1e-5)
