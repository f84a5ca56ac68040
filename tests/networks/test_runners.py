import numpy as np
import pytest

from dfkd_edge.errors import EnvironmentLackingError
from dfkd_edge.networks.runners import TorchRunner
from dfkd_edge.networks.teacher import Teacher
from tests.fixtures.small_card import out_of_memory_above


def test_a_runner_goes_on_in_halves_with_the_same_answers_where_memory_runs_out(
    tiny_teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, told = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8), list[str]()
    whole = TorchRunner("teacher", tiny_teacher)(images)
    monkeypatch.setattr(Teacher, "embed_images", out_of_memory_above(2, Teacher.embed_images))
    runner = TorchRunner("teacher", tiny_teacher, told.append)
    parts = runner(images)
    np.testing.assert_allclose(parts.logits, whole.logits, atol=0.2)
    assert parts.probabilities.shape == whole.probabilities.shape
    assert told == ["  out of memory while running the teacher: 3 images at a time now",
                    "  out of memory while running the teacher: 1 image at a time now"]  # fmt: skip
    monkeypatch.setattr(Teacher, "embed_images", out_of_memory_above(0, Teacher.embed_images))
    with pytest.raises(EnvironmentLackingError, match="one image while running the teacher"):
        runner(images)
