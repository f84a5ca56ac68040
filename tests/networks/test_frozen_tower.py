import pytest
import torch

from dfkd_edge.networks.frozen_tower import MIN_VIEWS, eyes_for, frozen_encode
from dfkd_edge.networks.mixed_precision import compute_type
from dfkd_edge.networks.teacher import Teacher


def test_the_frozen_tower_sees_what_the_teacher_does_whatever_the_number_of_images(
    teacher: Teacher,
) -> None:
    encode, side = frozen_encode(teacher), teacher.image_size_px
    image_NCHW = torch.rand((5, 3, side, side), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        seen_ND = teacher.model.encode_image(image_NCHW)  # type: ignore[operator]
    for num in (1, 5):
        torch.testing.assert_close(encode(image_NCHW[:num]), seen_ND[:num], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("num_views", [MIN_VIEWS - 1, MIN_VIEWS])
def test_it_is_traced_for_many_views_on_a_cpu_that_computes_in_float32(
    num_views: int, teacher: Teacher
) -> None:
    eyes = eyes_for(teacher, num_views)
    is_frozen = num_views >= MIN_VIEWS and compute_type("cpu") == torch.float32
    assert (eyes != teacher.embed_images) == is_frozen
    image_NCHW = torch.rand((2, 3, 96, 96), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        seen_ND, expected_ND = eyes(image_NCHW), teacher.embed_images(image_NCHW)
    torch.testing.assert_close(seen_ND, expected_ND, atol=1e-4, rtol=1e-4)
