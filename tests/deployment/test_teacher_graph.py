from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dfkd_edge.class_names import ClassNames
from dfkd_edge.config import TeacherConfig
from dfkd_edge.deployment.proof import open_runner
from dfkd_edge.deployment.teacher_graph import write_teacher
from dfkd_edge.teacher import Teacher, load_teacher
from dfkd_edge.validation.torch_runners import TeacherNetwork, TorchRunner


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
    assert graph is not None
    side_px = teacher.image_size_px
    image_NHWC = np.random.default_rng(0).integers(0, 256, (1, side_px, side_px, 3), np.uint8)
    wanted = TorchRunner("teacher", TeacherNetwork(teacher))(image_NHWC).embedding
    given = open_runner(graph, 1)(image_NHWC).embedding
    assert float((wanted * given).sum()) > 0.99  # the teacher may compute in bfloat16
