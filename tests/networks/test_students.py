from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F

from dfkd_edge.artifacts import StudentArtifact
from dfkd_edge.config.settings import DistillationConfig
from dfkd_edge.errors import ArtifactError, ConfigError
from dfkd_edge.files import atomic_write
from dfkd_edge.networks.names import MINI_BACKBONE
from dfkd_edge.networks.students import build_student, load_student, require_side, student_tensors
from dfkd_edge.networks.teacher import Teacher
from tests.fixtures.files import edit_json
from tests.fixtures.typed import student_settings


def test_the_default_student_is_a_third_of_the_teacher_or_less(teacher: Teacher) -> None:
    student = build_student("mini", "random", teacher.head_KD, teacher.logit_scale)
    assert student.num_parameters * 3 <= teacher.num_image_parameters


def test_start_weights_already_agree_with_the_teacher(teacher: Teacher) -> None:
    generator = torch.Generator().manual_seed(0)
    image = F.interpolate(torch.rand(16, 3, 6, 6, generator=generator), size=128, mode="bicubic")
    image = image.clamp(0, 1)
    cosine = {}
    with torch.no_grad():
        for init in ("pretrained", "random"):
            student = build_student("mini", init, teacher.head_KD, teacher.logit_scale).eval()
            student_ND, teacher_ND = student.embed_images(image), teacher.embed_images(image)
            cosine[init] = float((student_ND * teacher_ND).sum(1).mean())
    assert cosine["pretrained"] > cosine["random"] + 0.3


def test_a_saved_student_gives_the_same_logits(teacher: Teacher, tmp_path: Path) -> None:
    student = build_student("mini", "random", teacher.head_KD, teacher.logit_scale).eval()
    settings = student_settings(
        timm_name=student.timm_name,
        image_size_px=student.image_size_px,
        classes=teacher.classes.names,
        embed_dim=teacher.embed_dim,
        logit_scale=student.logit_scale,
    )
    artifact = StudentArtifact(tmp_path, settings)
    artifact.save_settings()
    atomic_write(artifact.weights, student_tensors(student))
    loaded = load_student(StudentArtifact.load(tmp_path))
    image = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(loaded(image), student(image))


def test_damaged_weights_and_unknown_names_are_reported(teacher: Teacher, tmp_path: Path) -> None:
    artifact = StudentArtifact(tmp_path, student_settings(timm_name="resnet18"))
    artifact.weights.write_bytes(b"cut short")
    with pytest.raises(ArtifactError, match="student cannot be read"):
        load_student(artifact)
    with pytest.raises(ConfigError, match="resnet18"):  # the nearest name
        build_student("resnet-18", "random", teacher.head_KD, 1.0)


def test_a_student_lies_where_its_head_does_and_is_tried_at_its_side(teacher: Teacher) -> None:
    student = build_student("mini", "pretrained", teacher.head_KD.to("meta"), 1.0)
    assert {t.device.type for t in (*student.parameters(), *student.buffers())} == {"meta"}
    require_side(DistillationConfig(student="vit_tiny_patch16_224", image_size_px=96))
    with pytest.raises(ConfigError, match=r"no images of 96 px.*own side is 224"):
        require_side(DistillationConfig(student="efficientformer_l1", image_size_px=96))


def test_the_default_network_has_blocks_of_the_teachers_shapes_and_needs_no_pad_node(
    teacher: Teacher,
) -> None:
    network = timm.create_model(MINI_BACKBONE, num_classes=0)
    visual: Any = teacher.model.visual
    source = visual.trunk.state_dict()
    for name, value in network.state_dict().items():
        if name.startswith(("conv_stem", "bn1", "blocks")):
            assert source[name].shape == value.shape, name
    paddings = [m.padding for m in network.modules() if type(m) is torch.nn.Conv2d]
    assert paddings
    assert all(isinstance(padding, tuple) for padding in paddings)  # symmetric ones
    with pytest.raises((ValueError, RuntimeError)):
        timm.create_model(MINI_BACKBONE, pretrained=True)


@pytest.mark.parametrize(
    "values",
    [
        {"image_size_px": 10**9},
        {"image_size_px": "96"},
        {"embed_dim": 10**12},
        {"embed_dim": True},
        {"logit_scale": "1"},
        {"logit_scale": -1},
        {"classes": [["a"], "b"]},
        {"classes": 3},
        {"classes": []},
        {"timm_name": ["resnet18"]},
        {"num_steps": -1},
    ],
)
def test_settings_of_a_student_that_none_can_have_are_one_line(
    tmp_path: Path, values: dict[str, object]
) -> None:
    StudentArtifact(tmp_path, student_settings()).save_settings()
    edit_json(tmp_path / "student.json", **values)
    with pytest.raises(ArtifactError, match=r"damaged .*student\.json"):
        StudentArtifact.load(tmp_path)
