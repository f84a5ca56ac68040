import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dfkd_edge.class_names import ClassNames
from dfkd_edge.config.settings import MINI, TeacherConfig
from dfkd_edge.conversion.teacher_graph import write_teacher
from dfkd_edge.interfaces import Runner
from dfkd_edge.networks.runners import TorchRunner
from dfkd_edge.networks.students import build_student
from dfkd_edge.networks.teacher import Teacher, load_teacher
from dfkd_edge.results.ladder import TEACHER
from dfkd_edge.runtime.timing import Latency
from dfkd_edge.validation import rungs as proof
from dfkd_edge.validation.rungs import build_rungs, graph_latency, open_runner


class DoubleTower(nn.Module):
    """A tower that is traced, and whose graph ONNX Runtime refuses: it has no such convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.ones(width, 3, 8, 8))

    def forward(self, pixel_NCHW: Tensor) -> Tensor:
        maps_NDhw = torch.conv2d(pixel_NCHW.double(), self.kernel.double(), stride=8)
        return maps_NDhw.mean((2, 3)).float()


class UntraceableTower(DoubleTower):
    def forward(self, pixel_NCHW: Tensor) -> Tensor:
        embedding_ND: Tensor = torch.special.i0(super().forward(pixel_NCHW))
        return embedding_ND


@pytest.mark.parametrize("kind", ["embedded", "transformer"])
def test_the_graph_answers_as_the_teacher_does(
    kind: str,
    teacher: Teacher,
    small_tower: Callable[[str], Path],
    classes: ClassNames,
    tmp_path: Path,
) -> None:
    if kind == "transformer":
        teacher = load_teacher(TeacherConfig(name=str(small_tower("clip"))), classes)
    graph = write_teacher(teacher, tmp_path)
    side_px = teacher.image_size_px
    image_NHWC = np.random.default_rng(0).integers(0, 256, (1, side_px, side_px, 3), np.uint8)
    wanted = TorchRunner("teacher", teacher)(image_NHWC).embedding
    given = open_runner(graph, 1)(image_NHWC).embedding
    assert float((wanted * given).sum()) > 0.99  # the teacher may compute in bfloat16


def test_the_graph_of_a_teacher_on_an_accelerator_has_the_weights_of_its_file(
    teacher: Teacher, tmp_path: Path
) -> None:
    far = copy.copy(teacher)
    far.model = copy.deepcopy(teacher.model).to("meta")  # holds no weights that could be written
    files = [write_teacher(each, tmp_path).path.read_bytes() for each in (teacher, far)]
    assert files[0] == files[1]


@pytest.mark.parametrize(
    ("tower", "refusal"), [(DoubleTower, "onnxruntime cannot load"), (UntraceableTower, "aten::i0")]
)
def test_a_teacher_that_is_no_graph_has_no_time_as_one_and_stops_no_proof(
    tower: type[DoubleTower],
    refusal: str,
    small_tower: Callable[[str], Path],
    classes: ClassNames,
    tmp_path: Path,
) -> None:
    teacher = load_teacher(TeacherConfig(name=str(small_tower("clip"))), classes)
    teacher.model.visual = tower(teacher.embed_dim)
    with pytest.raises(Exception, match=refusal):
        open_runner(write_teacher(teacher, tmp_path), 1)
    assert graph_latency(teacher, 1) is None


def test_the_time_of_the_teacher_as_a_graph_is_the_graphs_with_its_doubts(
    teacher: Teacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clock(runner: Runner, side_px: int) -> Latency:
        """Tell by the time what was timed."""
        is_graph = runner.name == "onnx-fp32"
        p50_ms, variation = (side_px, 0.5) if is_graph else (1.0, 0.0)
        return Latency(1, 20, {"p50": p50_ms}, p50_ms, p50_ms, p50_ms, variation, 1, 1, 1)

    monkeypatch.setattr(proof, "one_image_latency", clock)
    student = build_student(MINI, "random", teacher.head_KD, teacher.logit_scale, 64)
    rungs = {rung.name: rung for rung in build_rungs(teacher, student, (), 1, "onnxruntime")}
    assert rungs[TEACHER].latency_ms == 1
    assert rungs[TEACHER].onnx_latency_ms == teacher.image_size_px
    assert rungs[TEACHER].onnx_latency_caveats == ("unsteady: deviation is 0.50 of the mean",)
    assert rungs[TEACHER].latency_caveats == ()
