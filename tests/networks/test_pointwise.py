"""Steps of students whose stem has a strided 1 x 1 convolution, in a process that may die of it."""

import subprocess
import sys

import pytest
import torch

from dfkd_edge.networks.pointwise import spare_strided_pointwise
from dfkd_edge.networks.students import build_student

STEPS = """
import torch
from dfkd_edge.networks.students import build_student
torch.set_num_threads(1)
torch.manual_seed(0)
student = build_student({name!r}, "random", torch.eye(4, 16), 50.0, 96).train()
for _ in range(3):
    student(torch.rand(8, 3, 96, 96)).square().mean().backward()
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fastvit_t8", "mobileone_s0", "repvit_m0_9"])
def test_a_student_with_a_strided_pointwise_stem_learns_and_the_process_lives(name: str) -> None:
    command = [sys.executable, "-c", STEPS.format(name=name)]
    # glibc's checks stop at the first damage, which otherwise may show steps later, or never
    done = subprocess.run(command, env={"MALLOC_CHECK_": "3"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]


def test_the_way_around_computes_the_same_with_the_same_weights() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1, 2), torch.nn.Conv2d(8, 8, 3, 2, 1))
        image_NCHW = torch.rand(2, 3, 15, 16)
        wanted = plain(image_NCHW)
        names = list(plain.state_dict())
        assert spare_strided_pointwise(plain) == 1
        torch.testing.assert_close(plain(image_NCHW), wanted)
        assert list(plain.state_dict()) == names
        assert spare_strided_pointwise(plain) == 0
        student = build_student("resnet18", "random", torch.eye(2, 16), 50.0, 64)
        assert spare_strided_pointwise(student) == 0
