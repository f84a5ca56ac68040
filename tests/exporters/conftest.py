"""Small students with random weights and live statistics; targets that take fewer images."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dfkd_edge.exporters.onnx_graph import OnnxExporter, smooth_images
from numpy.typing import NDArray
from timm.models import register_model
from timm.models._efficientnet_builder import decode_arch_def
from timm.models.efficientnet import EfficientNet
from torch import nn
from torch.nn.functional import normalize

from dfkd_edge.artifacts import ModelFile, StudentArtifact
from dfkd_edge.config.settings import ExportConfig
from dfkd_edge.files import atomic_write
from dfkd_edge.networks.students import Student, student_tensors
from dfkd_edge.target_profiles.lookup import load_target
from dfkd_edge.target_profiles.profile import TargetProfile
from tests.fixtures.typed import student_settings

DEPTHWISE, RESIDUAL = "tiny_mobilenet", "test_resnet"
"""Two families in few layers: tracing takes most of the time of these tests."""
BOARDS = {"tensorrt": "jetson", "x86": "x86-cpu", "arm": "raspberry-pi-5"}
Exported = Callable[..., ModelFile]
SavedStudent = Callable[..., StudentArtifact]


def tiny_mobilenet(pretrained: bool = False, **_: Any) -> EfficientNet:
    """Depthwise convolutions, ReLU6 and linear bottlenecks, as MobileNetV2 has them."""
    stages = ("ds_r1_k3_s1_e1_c16", "ir_r2_k3_s2_e4_c24", "ir_r2_k5_s2_e4_c32")
    return EfficientNet(
        block_args=decode_arch_def([[stage] for stage in stages]),
        num_features=160,
        stem_size=16,
        fix_stem=True,
        act_layer=nn.ReLU6,
        num_classes=0,
    )


register_model(tiny_mobilenet)


def make_target(spec: str) -> TargetProfile:
    return dataclasses.replace(load_target(BOARDS[spec]), min_calibration_images=64)


TENSORRT = make_target("tensorrt")


def save_student(timm_name: str, side_px: int, folder: Path) -> None:
    """Random weights; the batch norms have seen pictures, so that activations live."""
    torch.manual_seed(0)
    head_KD = normalize(torch.randn(3, 64), dim=1)
    student = Student(timm_name, side_px, head_KD, 50.0)
    image_NHWC = torch.from_numpy(smooth_images(16, side_px, seed=1))
    with torch.no_grad():
        for _ in range(12):
            student.train()(image_NHWC.permute(0, 3, 1, 2) / 255)
    student.eval()
    atomic_write(folder / "student.safetensors", student_tensors(student))
    settings = student_settings(timm_name=timm_name, image_size_px=side_px)
    StudentArtifact(folder, settings).save_settings()


@pytest.fixture(scope="session")
def images() -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = smooth_images(72, 64, seed=2)
    return pixels


@pytest.fixture(scope="session")
def saved_student(tmp_path_factory: pytest.TempPathFactory) -> SavedStudent:
    @functools.cache
    def make(timm_name: str, side_px: int = 64) -> StudentArtifact:
        folder = tmp_path_factory.mktemp("student")
        save_student(timm_name, side_px, folder)
        return StudentArtifact.load(folder)

    return make


@pytest.fixture(scope="session")
def exported(saved_student: SavedStudent, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Float32 graphs, each made once; tests must not change the files."""

    @functools.cache
    def make(timm_name: str, side_px: int = 64, batch: tuple[int, ...] = (1,)) -> ModelFile:
        path = tmp_path_factory.mktemp("onnx") / "model.fp32.onnx"
        args = (saved_student(timm_name, side_px), TENSORRT, ExportConfig(batch=batch), path)
        file: ModelFile = OnnxExporter().export(*args)
        return file

    return make
