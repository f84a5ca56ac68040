import pytest
import torch
from torch import Tensor

from dfkd_edge.networks import frozen_tower
from dfkd_edge.networks.frozen_tower import MIN_VIEWS, eyes_for, frozen_encode
from dfkd_edge.networks.teacher import Teacher


@pytest.fixture
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute as a CPU without bfloat16 does."""
    for module in ("frozen_tower", "mixed_precision"):
        monkeypatch.setattr(f"dfkd_edge.networks.{module}.compute_type", lambda _: torch.float32)


def never(text: str) -> None:
    raise AssertionError(text)


def test_the_frozen_tower_sees_what_the_teacher_does_whatever_the_number_of_images(
    teacher: Teacher,
) -> None:
    encode, side = frozen_encode(teacher), teacher.image_size_px
    image_NCHW = torch.rand((5, 3, side, side), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        seen_ND = teacher.model.encode_image(image_NCHW)  # type: ignore[operator]
    for num in (1, 5):
        torch.testing.assert_close(encode(image_NCHW[:num]), seen_ND[:num], atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize("num_views", [MIN_VIEWS - 1, MIN_VIEWS])
def test_it_is_traced_for_many_views_on_a_cpu_that_computes_in_float32(
    num_views: int, teacher: Teacher
) -> None:
    eyes = eyes_for(teacher, num_views, never)
    assert (eyes != teacher.embed_images) == (num_views >= MIN_VIEWS)
    image_NCHW = torch.rand((2, 3, 96, 96), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        seen_ND, expected_ND = eyes(image_NCHW), teacher.embed_images(image_NCHW)
    torch.testing.assert_close(seen_ND, expected_ND, atol=1e-4, rtol=1e-4)


def test_a_cpu_that_computes_in_bfloat16_needs_none(
    teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen_tower, "compute_type", lambda _: torch.bfloat16)
    assert eyes_for(teacher, MIN_VIEWS, never) == teacher.embed_images


def breaks(_: Teacher) -> frozen_tower.Encode:
    raise RuntimeError("no kernel for Resize")


def answers_otherwise(teacher: Teacher) -> frozen_tower.Encode:
    def encode(image_NCHW: Tensor) -> Tensor:
        return torch.ones(len(image_NCHW), teacher.embed_dim)

    return encode


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize(
    ("encoder", "why"), [(breaks, "no kernel for Resize"), (answers_otherwise, "differs by 0")]
)
def test_the_teacher_sees_itself_where_a_graph_cannot_and_the_user_is_told_why(
    encoder: object, why: str, teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen_tower, "frozen_encode", encoder)
    said: list[str] = []
    assert eyes_for(teacher, MIN_VIEWS, said.append) == teacher.embed_images
    (line,) = said
    assert why in line
