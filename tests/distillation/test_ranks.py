"""A student that ranks train together: real processes over gloo, each with its part of a batch.

Shape suffixes: N images, C = 3 channels, H rows, W columns.
"""

import hashlib
import json
import os
import signal
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dfkd_edge.artifacts import SurrogateSet
from dfkd_edge.class_names import parse_class_names
from dfkd_edge.config.settings import DistillationConfig, TeacherConfig
from dfkd_edge.distillation import distill, require_images
from dfkd_edge.distillation.step import StepFigures, Trainer
from dfkd_edge.errors import ConfigError
from dfkd_edge.machine.joining import joined
from dfkd_edge.machine.process import prepare_process
from dfkd_edge.machine.ranks import Ranks
from dfkd_edge.networks.gradient_sums import ShardSums
from dfkd_edge.networks.joint_norm import jointly_normed
from dfkd_edge.networks.mixed_precision import Precision, has_fast_bfloat16
from dfkd_edge.networks.students import load_student, student_tensors
from dfkd_edge.networks.teacher import Teacher, load_teacher
from dfkd_edge.runs.checkpoint import SaveClock
from dfkd_edge.runs.context import StageContext
from dfkd_edge.runs.run_dir import RunDir
from dfkd_edge.runs.shared import open_shared_run
from tests.conftest import SilentReporter
from tests.fixtures.ranks import Ended, as_command, learning_in_float32, start_ranks
from tests.fixtures.typed import blocks, surrogate_set

FROZEN = DistillationConfig(num_steps=4, batch_size=7, num_warmup_steps=2, image_size_px=48)
CONFIGS = {
    "pretrained": replace(FROZEN, hard_share=0.3),
    # small steps: Adam makes as long ones of gradients that are 0 but for rounding, of which a
    # network with BatchNorm has some
    "random": replace(FROZEN, student_init="random", ema_decay=0.9, learning_rate=3e-6),
    "stored": replace(FROZEN, num_steps=2, num_stored_views=2),
    "rounded": replace(FROZEN, num_steps=3),  # in bfloat16, where this CPU computes in it
}
module = sys.modules["dfkd_edge.distillation.distill"]  # the package has the function of that name


def pictures() -> SurrogateSet:
    number = np.arange(24)
    return surrogate_set(blocks(24, 6), number % 3, is_heldout=number % 6 == 5)


def learn(folder: Path, names: tuple[str, ...], group: Ranks, teacher: Teacher) -> None:
    """Train a student by each of some settings; every rank must have the same one."""
    for name in names:
        ends: list[str] = []
        copy_to = module.WeightAverage.copy_to

        def noted(average: Any, network: Any, copy_to: Any = copy_to, ends: Any = ends) -> None:
            copy_to(average, network)
            ends.append(hashlib.sha256(student_tensors(network)).hexdigest())

        with (
            pytest.MonkeyPatch.context() as patch,
            open_shared_run(folder / name, "", group, resume=True, exist_ok=True) as run_dir,
        ):
            patch.setattr(module.WeightAverage, "copy_to", noted)
            patch.setattr(module, "METRICS_EVERY_STEPS", 2)  # the host knows hard images early
            if name != "rounded":
                learning_in_float32(patch)
            context = StageContext(run_dir, SilentReporter(), 0, "cpu", group)
            distill(teacher, pictures(), CONFIGS[name], context)
        assert len(set(group.gather(ends[0]))) == 1


def in_group(work: Any) -> None:
    with joined() as group:
        prepare_process("cpu", 1, group)
        names = parse_class_names("one\ntwo\nthree", "a test")
        work(group, load_teacher(TeacherConfig(), names))


def learn_all(folder: Path) -> None:
    def work(group: Ranks, teacher: Teacher) -> None:
        share_norm(group)
        share_overflow(group)
        share_notes(group, folder)
        learn(folder, tuple(CONFIGS), group, teacher)

    in_group(work)


def share_norm(group: Ranks) -> None:
    """Normalise 7 images on all ranks, and compare with one that sees them all."""
    torch.manual_seed(0)
    image_NCHW = 3 + torch.randn(7, 3, 6, 6)
    layers = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    whole, shared = layers
    weight_NCHW = torch.randn(7, 4, 4, 4)
    (whole(image_NCHW) * weight_NCHW).sum().backward()
    ours = group.part_of(7)
    (jointly_normed(shared, group)(image_NCHW[ours]) * weight_NCHW[ours]).sum().backward()
    group.add_up_gradients(shared.parameters())
    for one, other in zip(whole.parameters(), shared.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-4)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(shared.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def share_overflow(group: Ranks) -> None:
    """Overflow in float16 on the last rank alone: all leave the step out, then go on."""
    network, precision = nn.Linear(4, 2), Precision("cpu", torch.float16)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2, fused=True)
    before = network.weight.detach().clone()
    for factor, is_left_out in ((1e6, True), (1.0, False)):
        optimiser.zero_grad()
        is_last = group.index == group.count - 1
        with precision.autocast():
            loss = network(torch.ones(3, 4)).mean() * (factor if is_last else 1.0)
        precision.backward(loss)
        group.add_up_gradients(network.parameters())
        precision.step(optimiser)
        assert torch.equal(network.weight, before) is is_left_out
    assert len(set(group.gather(str(precision.tensors())))) == 1


def share_notes(group: Ranks, folder: Path) -> None:
    """Tell the last rank something: in the end the first one says so, and no rank twice."""
    reporter = SilentReporter()
    with StageContext(RunDir(folder), reporter, 0, "cpu", group).speaking_for_all() as context:
        context.reporter.note("  all of us")
        if group.index == group.count - 1:
            context.reporter.note("  8 images at a time now")
    told = reporter.stages
    if group.count == 1:
        assert told == ["  all of us", "  8 images at a time now"]
    elif group.is_first:
        assert told[0] == "  all of us"
        assert told[1].startswith(f"  rank {group.count - 1} on ")
        assert told[1].endswith(": 8 images at a time now")
        assert len(told) == 2


def logits(run: Path) -> Tensor:
    from dfkd_edge.artifacts import StudentArtifact

    student = load_student(StudentArtifact.load(run / "student"))
    image_NCHW = torch.rand((4, 3, 48, 48), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found: Tensor = student(image_NCHW)
    return found


def far(run: Path, other: Path) -> float:
    return float((logits(run) - logits(other)).abs().max())


def figures(run: Path) -> list[float]:
    """What was noted of all steps: of a whole batch, however many share it."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [value for line in lines for value in json.loads(line).values() if value != "student"]


def codes(ended: list[Ended]) -> list[int]:
    return [rank.code for rank in ended]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    ended = start_ranks(1, folder, learn_all, folder).wait()
    assert codes(ended) == [0], ended
    return folder


@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_ranks_train_the_student_that_one_process_trains(
    tmp_path: Path, alone: Path, count: int
) -> None:
    ended = start_ranks(count, tmp_path, learn_all, tmp_path).wait()
    assert codes(ended) == [0] * count, ended
    for name in CONFIGS:
        to_the_last_bit = name == "rounded" and has_fast_bfloat16("cpu")
        assert far(tmp_path / name, alone / name) <= (0 if to_the_last_bit else 1e-3)
        assert figures(tmp_path / name) == pytest.approx(figures(alone / name), abs=1e-3)


def learn_on_small_card(folder: Path, name: str) -> None:
    """Let the second rank hold two images at a time."""

    def work(group: Ranks, teacher: Teacher) -> None:
        embed = teacher.embed_images

        def small(image_NCHW: Tensor) -> Tensor:
            if len(image_NCHW) > 2 and group.index == 1:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return embed(image_NCHW)

        teacher.embed_images = small  # type: ignore[assignment, method-assign]
        learn(folder, (name,), group, teacher)

    as_command(partial(in_group, work))


def test_all_ranks_begin_a_batch_again_in_halves_when_one_runs_out_of_memory(
    tmp_path: Path, alone: Path
) -> None:
    ended = start_ranks(2, tmp_path, learn_on_small_card, tmp_path, "pretrained").wait()
    assert codes(ended) == [0, 0], ended
    (record,) = (tmp_path / "pretrained" / "student").glob("*.parts.json")
    assert json.loads(record.read_text())["images"] == 2  # halves of the second rank's four
    assert far(tmp_path / "pretrained", alone / "pretrained") < 1e-3


def test_ranks_end_with_a_line_where_batchnorm_needs_the_batch_and_one_runs_out(
    tmp_path: Path,
) -> None:
    ended = start_ranks(2, tmp_path, learn_on_small_card, tmp_path, "random").wait()
    (line,) = [line for rank in ended for line in rank.err.splitlines() if "error" in line]
    assert line.startswith("error: rank 1 on ")
    assert "4 images at once while training the student" in line
    assert codes(ended) == [1, 4]  # the other one has lost it


def learn_until(folder: Path, name: str, last: int) -> None:
    """Kill the last rank amidst a step, once checkpoints were written."""

    def work(group: Ranks, teacher: Teacher) -> None:
        calls, take = 0, Trainer.step

        def step(*args: Any) -> StepFigures:
            nonlocal calls
            calls += 1
            if calls == last and group.index == group.count - 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return take(*args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SaveClock, "is_due", True)
            patch.setattr(Trainer, "step", step)
            learn(folder, (name,), group, teacher)
        assert calls == CONFIGS[name].num_steps - 2  # two were kept

    as_command(partial(in_group, work))


def test_a_group_that_was_killed_goes_on_with_another_number_of_ranks(
    tmp_path: Path, alone: Path
) -> None:
    ended = start_ranks(3, tmp_path, learn_until, tmp_path, "pretrained", 3).wait()
    assert codes(ended) == [1, 1, -signal.SIGKILL]
    assert "".join(rank.err for rank in ended).count("the same command goes on\n") == 1
    ended = start_ranks(2, tmp_path, learn_until, tmp_path, "pretrained", 9).wait()
    assert codes(ended) == [0, 0], ended
    assert far(tmp_path / "pretrained", alone / "pretrained") < 1e-3


@pytest.mark.parametrize("batch_size", [7, 64, 96])
def test_shards_are_the_same_for_up_to_three_ranks_and_more_have_one_each(batch_size: int) -> None:
    sizes = {ShardSums(batch_size, Ranks(0, count)).together for count in (1, 2, 3)}
    assert len(sizes) == 1
    for count in range(1, batch_size + 1):
        rows = [ShardSums(batch_size, Ranks(index, count)).mine for index in range(count)]
        assert all(rows[index].start < rows[index].stop for index in range(count))
        assert [r.stop for r in rows] == [*(r.start for r in rows[1:]), batch_size]


def test_more_ranks_than_images_of_a_batch_are_refused() -> None:
    require_images(FROZEN, Ranks(0, 7))
    with pytest.raises(ConfigError, match="8 ranks would share batches of 7"):
        require_images(FROZEN, Ranks(0, 8))
