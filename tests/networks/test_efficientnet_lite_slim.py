from typing import Any

import pytest
import timm
import torch

from dfkd_edge.networks import efficientnet_lite_slim
from dfkd_edge.networks.teacher import Teacher


def test_every_kept_block_has_the_shape_of_a_block_of_the_teacher(teacher: Teacher) -> None:
    student = timm.create_model(efficientnet_lite_slim.NAME, num_classes=0)
    visual: Any = teacher.model.visual
    source = visual.trunk.state_dict()
    for name, value in student.state_dict().items():
        if name.startswith(("conv_stem", "bn1", "blocks")):
            assert source[name].shape == value.shape, name


def test_its_convolutions_pad_symmetrically_so_that_no_pad_node_is_exported() -> None:
    network = timm.create_model(efficientnet_lite_slim.NAME, num_classes=0)
    paddings = [m.padding for m in network.modules() if type(m) is torch.nn.Conv2d]
    assert paddings
    assert all(isinstance(padding, tuple) for padding in paddings)


def test_hub_weights_are_refused() -> None:
    with pytest.raises((ValueError, RuntimeError)):
        timm.create_model(efficientnet_lite_slim.NAME, pretrained=True)
