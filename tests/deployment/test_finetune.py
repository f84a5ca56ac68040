import copy
import dataclasses

import numpy as np
import pytest
import torch
from dfkd_edge.exporters.quantized_weights import quantize_weight
from onnx import helper
from torch import nn

from dfkd_edge.config.settings import MINI
from dfkd_edge.deployment import finetune as qat
from dfkd_edge.deployment.finetune import (
    RoundedWeight,
    finetune_quantized,
    input_ranges,
    rounded_input,
    rounding,
)
from dfkd_edge.distillation.step import feature_distances
from dfkd_edge.networks.students import Student, build_student
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.runs.context import StageContext
from dfkd_edge.target_profiles.profile import QuantizationSpec
from tests.fixtures.typed import blocks, surrogate_set, whole

SYMMETRIC = QuantizationSpec(name="s8s8", activation_dtype="int8", activation_symmetric=True)
UNSIGNED = QuantizationSpec(name="u8s8", activation_dtype="uint8", activation_symmetric=False)


@pytest.fixture
def student(teacher: Teacher) -> Student:
    return build_student(MINI, "pretrained", teacher.head_KD, teacher.logit_scale, 64).eval()


def test_weights_take_255_levels_a_channel_and_scaling_a_channel_changes_nothing() -> None:
    weight = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    round_weight = RoundedWeight(127, per_channel=True)
    rounded = round_weight(weight)
    levels = rounded / (weight.flatten(1).abs().amax(1)[:, None, None, None] / 127)
    assert torch.allclose(levels, levels.round(), atol=1e-3)
    scale = torch.tensor([0.1, 1.0, 3.0, -20.0])[:, None, None, None]
    assert torch.allclose(round_weight(weight * scale), rounded * scale, atol=1e-5)


def test_the_student_learns_with_the_range_that_the_exporter_will_use(student: Student) -> None:
    reduced = dataclasses.replace(UNSIGNED, reduce_range=True)
    image = torch.rand((2, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    ranges = input_ranges(student, image, 100.0)
    seen = set()
    with rounding(student, ranges, reduced):
        for module in student.modules():
            if not isinstance(module, nn.Conv2d):
                continue
            weight = module.weight.detach().numpy()
            levels = max(len(np.unique(channel)) for channel in weight) // 2
            node = helper.make_node("Conv", ["x"], ["y"], group=module.groups)
            exported = quantize_weight(node, weight, reduced, np.zeros(len(weight), np.float32))
            limit = int(np.abs(exported.value).max())
            assert levels <= limit
            seen.add((module.groups > 1, limit))
    assert seen == {(True, 127), (False, 64)}


@pytest.mark.parametrize("spec", [SYMMETRIC, UNSIGNED])
def test_activations_keep_zero_and_are_cut_off_at_their_range(spec: QuantizationSpec) -> None:
    value = torch.tensor([-9.0, -1.0, -0.004, 0.0, 0.5, 2.0, 9.0])
    rounded = rounded_input(value, (-1.0, 2.0), spec)
    assert rounded[3] == 0
    assert rounded.max() == pytest.approx(2.0, abs=0.02)
    assert rounded.min() == pytest.approx(-2.0 if spec.activation_symmetric else -1.0, abs=0.02)
    assert (rounded[2:5] - value[2:5]).abs().max() < 0.009


def test_rounding_changes_the_logits_a_little_and_leaves_no_trace(student: Student) -> None:
    image = torch.rand((4, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    names = set(dict(student.named_parameters()))
    with torch.no_grad():
        before = student(image)
        ranges = input_ranges(student, image, 100.0)
        with rounding(student, ranges, SYMMETRIC):
            inside = student(image)
        after = student(image)
    assert torch.equal(before, after)
    assert set(dict(student.named_parameters())) == names
    assert 1e-4 < (inside - before).abs().mean() < 0.5 * before.std()


def test_the_fine_tune_brings_the_rounded_student_closer_and_keeps_statistics(
    student: Student, teacher: Teacher, context: StageContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"NUM_STEPS": 10, "BATCH_SIZE": 8, "NUM_RANGE_IMAGES": 16}
    for name, value in few.items():
        monkeypatch.setattr(qat, name, value)
    monkeypatch.setattr(qat, "TUNING", dataclasses.replace(qat.TUNING, learning_rate=1e-3))
    number = np.arange(24)
    surrogates = surrogate_set(blocks(24, 8), number % 3, is_heldout=number % 6 == 5)
    image = torch.from_numpy(whole(surrogates.images)[:8]).permute(0, 3, 1, 2) / 255
    teacher_embedding = teacher.embed_images(image)

    def distance() -> float:
        with torch.no_grad(), rounding(student, input_ranges(student, image, 99.99), SYMMETRIC):
            return float(feature_distances(student.embed_images(image), teacher_embedding).mean())

    before, start = distance(), copy.deepcopy(student.state_dict())
    report = finetune_quantized(student, teacher, surrogates, SYMMETRIC, 99.99, context)
    state = student.state_dict()
    assert state.keys() == start.keys()
    kept = [n for n in start if "running_" in n or n == "head_KD"]
    assert kept
    assert all(torch.equal(state[n], start[n]) for n in kept)
    assert distance() < before - 0.02
    assert report.num_steps == 10
    assert report.num_layers == len(qat._layers(student))
