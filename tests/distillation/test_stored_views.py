"""Views that a large teacher labels once."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dfkd_edge.artifacts import SurrogateSet, load_tensors
from dfkd_edge.config.settings import DistillationConfig, PipelineConfig
from dfkd_edge.config.sizes import sized
from dfkd_edge.distillation import distill, stored_views
from dfkd_edge.distillation.step import Trainer
from dfkd_edge.distillation.stored_views import StoredViews, num_stored_views
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.runs.context import StageContext
from tests.conftest import SilentReporter
from tests.fixtures.typed import blocks, surrogate_set

CONFIG = DistillationConfig(
    student_init="random", num_steps=3, batch_size=8, image_size_px=48, num_stored_views=2
)


@pytest.fixture
def surrogates() -> SurrogateSet:
    number = np.arange(24)
    return surrogate_set(blocks(24, 6), number % 3, is_heldout=number % 6 == 5)


@pytest.fixture
def seen(teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches that the teacher embeds."""
    sizes, embed = list[int](), teacher.embed_images

    def counted(image_NCHW: Tensor) -> Tensor:
        sizes.append(len(image_NCHW))
        return embed(image_NCHW)

    monkeypatch.setattr(teacher, "embed_images", counted)
    return sizes


def test_the_teacher_sees_each_stored_view_once_and_none_in_training(
    teacher: Teacher, surrogates: SurrogateSet, context: StageContext, seen: list[int]
) -> None:
    distill(teacher, surrogates, CONFIG, context)
    assert sum(seen) == 20 * 2  # images that are not held out, twice
    longer = dataclasses.replace(CONFIG, num_steps=5)  # another student of the same views
    distill(teacher, surrogates, longer, context)
    assert sum(seen) == 20 * 2
    distill(teacher, surrogates, dataclasses.replace(longer, style_probability=0.0), context)
    assert sum(seen) == 2 * 20 * 2


def test_training_reads_what_the_teacher_sees_in_the_very_views(
    teacher: Teacher,
    surrogates: SurrogateSet,
    context: StageContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pairs, look = list[tuple[Tensor, Tensor]](), Trainer.look

    def noted(trainer: Trainer, view_NCHW: Tensor, teacher_ND: Tensor, size: int) -> Any:
        pairs.append((view_NCHW, teacher_ND))
        return look(trainer, view_NCHW, teacher_ND, size)

    monkeypatch.setattr(Trainer, "look", noted)
    distill(teacher, surrogates, CONFIG, context)
    assert len(pairs) == 3
    for view_NCHW, read_ND in pairs:
        with torch.no_grad():
            fresh_ND = teacher.embed_images(view_NCHW)
        assert float((fresh_ND * read_ND).sum(1).min()) > 0.999


def test_labelling_that_was_stopped_goes_on_with_the_next_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_views, "PART_VIEWS", 16)
    rows, made = np.array([1, 2, 5, 7, 8, 9, 11]), list[int]()

    def embed(number_N: np.ndarray) -> Tensor:
        if len(made) + len(number_N) > stop:
            raise KeyboardInterrupt
        made.extend(number_N)
        return torch.from_numpy(number_N)[:, None].expand(-1, 4)

    stored, stop = StoredViews(tmp_path, "key", rows, 5, seed=0), 25
    with pytest.raises(KeyboardInterrupt):
        stored.write(embed, 6, SilentReporter())
    assert made == list(range(22))  # a part, and a piece of one that was not written
    assert [p.name for p in tmp_path.iterdir()] == ["part-00000.safetensors"]
    made.clear()
    stop = 100
    stored.write(embed, 6, SilentReporter())
    assert made == list(range(16, 35))
    assert stored.embeddings(np.array([34, 3, 3]))[:, 0].tolist() == [34, 3, 3]
    assert load_tensors(tmp_path / "part-00002.safetensors")["embeddings"].dtype == np.float16
    other = StoredViews(tmp_path, "of another teacher", rows, 5, seed=0)
    made.clear()
    other.write(embed, 6, SilentReporter())
    assert len(made) == 35


def test_a_view_follows_from_seed_image_and_number_whatever_else_is_stored(tmp_path: Path) -> None:
    few = StoredViews(tmp_path, "", np.array([2, 7]), 3, seed=0)
    many = StoredViews(tmp_path, "", np.arange(10), 5, seed=0)
    for image, row in ((0, 2), (1, 7)):
        for view in range(3):
            one, two = few.keys(np.array([image * 3 + view])), many.keys(np.array([row * 5 + view]))
            assert torch.equal(one, two)
    drawn = np.concatenate([many.draw(np.array([4, 9]), step) for step in range(60)])
    assert set(drawn) == {*range(20, 25), *range(45, 50)}
    assert len(set(many.keys(np.arange(50)).tolist())) == 50


def test_views_are_stored_for_a_large_teacher_in_a_long_run_or_on_request() -> None:
    long = DistillationConfig(num_steps=20_000, batch_size=128)
    large, small = (lambda: (162, 2)), (lambda: (8, 2))
    assert num_stored_views(long, 12_800, large) == 10
    assert num_stored_views(long, 12_800, small) == 0

    def never() -> tuple[int, int]:
        raise AssertionError("the number of steps decides")

    assert num_stored_views(dataclasses.replace(long, num_steps=1_000), 12_800, never) == 0
    assert num_stored_views(dataclasses.replace(long, num_stored_views=3), 12_800, never) == 3
    assert num_stored_views(dataclasses.replace(long, num_stored_views=0), 12_800, never) == 0
    usual = sized(PipelineConfig(), 7)
    num_images = usual.synthesis.num_images
    assert num_stored_views(usual.distillation, num_images, never) == 0
