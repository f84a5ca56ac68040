import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dfkd_edge import assets
from dfkd_edge.artifacts import FewShotSummary, SurrogateSet
from dfkd_edge.config.settings import DistillationConfig
from dfkd_edge.distillation import distill
from dfkd_edge.distillation.optim import share_back
from dfkd_edge.distillation.step import StepFigures, Trainer
from dfkd_edge.networks.students import load_student
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.runs.checkpoint import SaveClock
from dfkd_edge.runs.context import StageContext
from dfkd_edge.runs.run_dir import open_run
from dfkd_edge.validation.evaluate import start_student
from tests.fixtures.typed import blocks, class_count, surrogate_set

SHORT = DistillationConfig(
    student_init="random", num_steps=4, batch_size=8, num_warmup_steps=2, image_size_px=64
)


EXTRAS = dataclasses.replace(SHORT, ema_decay=0.9, hard_share=0.25, balanced_styles=True)


@pytest.fixture
def surrogates(teacher: Teacher) -> SurrogateSet:
    images, number = blocks(24, 6), np.arange(24)
    with torch.no_grad():
        embedding = teacher.embed_images(torch.from_numpy(images).permute(0, 3, 1, 2) / 255)
    fields = {"embeddings": embedding.numpy(), "is_heldout": number % 6 == 5}
    return surrogate_set(images, number % 3, **fields)


def _weights(run: Path) -> bytes:
    return (run / "student" / "student.safetensors").read_bytes()


def test_the_student_comes_closer_to_the_teacher(
    teacher: Teacher, surrogates: SurrogateSet, context: StageContext
) -> None:
    config = DistillationConfig(
        student_init="random", num_steps=16, batch_size=12, num_warmup_steps=3, image_size_px=48
    )
    artifact = distill(teacher, surrogates, config, context)
    metrics = context.run_dir.read_metrics()
    assert metrics[-1]["feature_distance"] < metrics[0]["feature_distance"] - 0.1
    start = start_student(artifact, teacher, context.seed)
    assert start.num_parameters == artifact.settings.num_parameters


class Stops:
    """A step of the trainer that is cut off, once, when it was called so many times."""

    def __init__(self, at: int) -> None:
        self.calls, self.at, self.take = 0, at, Trainer.step

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def step(*args: Any) -> StepFigures:
            made = self.take(*args)
            self.calls += 1
            if self.calls == self.at:
                raise KeyboardInterrupt
            return made

        monkeypatch.setattr(Trainer, "step", step)


@pytest.mark.parametrize("is_float16", [False, True])
def test_a_stopped_run_ends_with_the_student_of_an_unbroken_one(
    is_float16: bool,
    teacher: Teacher,
    tiny_teacher: Teacher,
    surrogates: SurrogateSet,
    context: StageContext,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = EXTRAS
    if is_float16:  # as on a card without bfloat16: gradients have a scale, which goes on too

        def half(_device_type: str) -> torch.dtype:
            return torch.float16

        monkeypatch.setattr("dfkd_edge.networks.mixed_precision.compute_type", half)
        teacher, config = tiny_teacher, dataclasses.replace(EXTRAS, student="test_resnet")
    monkeypatch.setattr(SaveClock, "is_due", True)
    distill(teacher, surrogates, config, context)
    stops = Stops(at=3)
    stops.patch(monkeypatch)
    with open_run(tmp_path / "broken", "key", resume=True, exist_ok=False) as run_dir:
        broken = dataclasses.replace(context, run_dir=run_dir)
        with pytest.raises(KeyboardInterrupt):
            distill(teacher, surrogates, config, broken)
        kept = load_file(run_dir.stage_dir("student") / "checkpoint.safetensors")
        assert ("more/scale/scale" in kept) is is_float16
        distill(teacher, surrogates, config, broken)
    assert stops.calls == 3 + config.num_steps - 2  # the third step was not kept
    assert _weights(tmp_path / "broken") == _weights(context.run_dir.path)


def test_other_start_weights_and_another_seed_give_other_students(
    teacher: Teacher,
    surrogates: SurrogateSet,
    context: StageContext,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = DistillationConfig(num_steps=1, batch_size=2, image_size_px=32)
    distill(teacher, surrogates, config, context)
    students = {_weights(context.run_dir.path)}
    distill(teacher, surrogates, config, dataclasses.replace(context, seed=1))
    students.add(_weights(context.run_dir.path))
    weights = {name: value * 2 for name, value in load_file(assets.START_WEIGHTS).items()}
    monkeypatch.setattr(assets, "START_WEIGHTS", tmp_path / "start.safetensors")
    save_file(weights, assets.START_WEIGHTS)
    distill(teacher, surrogates, config, context)
    assert len(students | {_weights(context.run_dir.path)}) == 3


def test_the_averaged_weights_ship(
    teacher: Teacher, surrogates: SurrogateSet, context: StageContext
) -> None:
    weights = []
    for decay in (0.0, 0.9):
        config = dataclasses.replace(SHORT, num_steps=1, ema_decay=decay)
        artifact = distill(teacher, surrogates, config, context)
        weights.append(load_student(artifact).projection.weight.detach())
    start = start_student(artifact, teacher, 0).projection.weight.detach()
    # the first step's decay is 1 / 10
    assert torch.allclose(weights[1], 0.1 * start + 0.9 * weights[0], atol=1e-7)
    assert not torch.allclose(weights[1], weights[0], atol=1e-7)


@pytest.mark.parametrize(("num_alike", "share"), [((80, 80, 0), 0.6 / 3), ((0, 0, 0), 0.0)])
def test_a_student_of_what_only_looks_like_its_classes_goes_back_towards_its_start(
    num_alike: tuple[int, ...],
    share: float,
    teacher: Teacher,
    surrogates: SurrogateSet,
    context: StageContext,
) -> None:
    config = DistillationConfig(num_steps=1, batch_size=2, image_size_px=32)
    weights = []
    for counts in ((), num_alike):
        classes = tuple(
            class_count(name, num_alike=n) for name, n in zip("abc", counts, strict=False)
        )
        summary = dataclasses.replace(surrogates.summary, classes=classes, content=str(counts))
        learnt = distill(teacher, dataclasses.replace(surrogates, summary=summary), config, context)
        weights.append(load_student(learnt).projection.weight.detach())
    start = start_student(learnt, teacher, 0).projection.weight.detach()
    torch.testing.assert_close(weights[1], weights[0].lerp(start, share))
    assert not torch.equal(weights[0], start)
    few_shot = FewShotSummary(
        num_pictures=3, num_copies=1, is_labelled=True, num_classes=3, teacher_agreement=1.0,
        pictures={},
    )  # fmt: skip
    assert share_back(config, dataclasses.replace(summary, few_shot=few_shot)) == 0
    assert share_back(SHORT, summary) == 0  # a random start knows nothing
