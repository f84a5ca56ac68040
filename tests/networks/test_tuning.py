from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dfkd_edge.networks.students import build_student
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.networks.tuning import compiled, tuned_kernels


@pytest.mark.parametrize("is_training", [False, True])
def test_both_towers_are_traced_as_one_graph_each(tiny_teacher: Teacher, is_training: bool) -> None:
    """A break in the graph would hand the pieces back to Python: nothing could be fused."""
    student = build_student("test_resnet", "random", tiny_teacher.head_KD, 50.0, 32)
    student.train(is_training)  # from a random start BatchNorm learns as the student does
    image = torch.rand((2, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    for embed in (student.embed_images, tiny_teacher.embed_images):
        graphs: list[torch.fx.GraphModule] = []

        def note(
            graph: torch.fx.GraphModule,
            _inputs: list[Tensor],
            found: list[torch.fx.GraphModule] = graphs,
        ) -> Callable[..., Any]:
            found.append(graph)
            return graph.forward  # no kernel is compiled, which would take minutes

        traced = torch.compile(embed, dynamic=False, backend=note)
        # a graph with gradients is that of a step, and the frozen tower's is without
        with torch.set_grad_enabled(is_training and embed == student.embed_images):
            torch.testing.assert_close(traced(image), embed(image))
        assert len(graphs) == 1


def test_kernels_are_as_before_afterwards_and_untouched_without_the_switch() -> None:
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, torch.get_float32_matmul_precision()
    with tuned_kernels(False):
        assert (cudnn.benchmark, torch.get_float32_matmul_precision()) == before
    with tuned_kernels(True):
        assert (cudnn.benchmark, torch.get_float32_matmul_precision()) == (True, "high")
    assert (cudnn.benchmark, torch.get_float32_matmul_precision()) == before
    assert compiled(abs, False) is abs
