"""A teacher, or a student, as a quickly traced ONNX graph that is timed and never shipped.

In torch the teacher computes in bfloat16 where the CPU can, and the student in float32: their times
there compare two precisions. The graph of a student that ships takes the exporter ten times as
long to write; a dry run needs one that computes the same.

Shape suffixes: N images, H rows, W columns, C = 3 channels (RGB), D embedding width, K classes.
"""

import io
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_edge.artifacts import ModelFile
from dfkd_edge.networks.students import Student
from dfkd_edge.networks.teacher import Teacher, load_teacher

OUTPUTS = ("logits", "probabilities", "embedding")


class TracedGraph(nn.Module):
    """An image tower with the inputs and outputs of an exported student."""

    mean: Tensor
    std: Tensor
    head_KD: Tensor

    def __init__(self, tower: nn.Module, classifier: Teacher | Student) -> None:
        super().__init__()
        self.tower = tower
        self.logit_scale = classifier.logit_scale
        self.register_buffer("mean", classifier.mean)
        self.register_buffer("std", classifier.std)
        self.register_buffer("head_KD", classifier.head_KD)

    def forward(self, image_NHWC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Classify RGB uint8 images: logits, probabilities [N, K], embedding [N, D]."""
        pixel_NCHW = image_NHWC.float().permute(0, 3, 1, 2) / 255
        embedding_ND = self.tower((pixel_NCHW - self.mean) / self.std)
        embedding_ND = embedding_ND / embedding_ND.norm(dim=1, keepdim=True)
        logits_NK = embedding_ND @ self.head_KD.T * self.logit_scale
        return logits_NK, logits_NK.softmax(1), embedding_ND


def write_teacher(teacher: Teacher, folder: Path) -> ModelFile:
    """Write the graph for one image.

    Raises:
        Exception: whatever torch's tracer throws; some towers cannot be traced.
    """
    if teacher.device.type != "cpu":  # where its weights are not as they were trained
        teacher = load_teacher(teacher.config, teacher.classes)
    model: Any = teacher.model
    return _traced(model.visual, teacher, folder / "teacher.fp32.onnx")


def write_quickly(student: Student, folder: Path) -> ModelFile:
    """Write the graph of a student for one image; raises as `write_teacher` does."""
    tower = nn.Sequential(student.backbone, student.projection)
    return _traced(tower, student, folder / "quick.fp32.onnx")


def _traced(tower: nn.Module, classifier: Teacher | Student, path: Path) -> ModelFile:
    side_px, device = classifier.image_size_px, classifier.head_KD.device
    image_NHWC = torch.zeros(1, side_px, side_px, 3, dtype=torch.uint8, device=device)
    is_fused = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)  # ONNX has no fused attention
        ignored = warnings.catch_warnings(action="ignore")
        with ignored, redirect_stdout(io.StringIO()), torch.no_grad():
            torch.onnx.export(
                TracedGraph(tower, classifier).eval(),
                (image_NHWC,),
                path,
                input_names=["image"],
                output_names=list(OUTPUTS),
                dynamo=False,  # the tracer: ten times as fast
            )
    finally:
        torch.backends.mha.set_fastpath_enabled(is_fused)
    return ModelFile(path, "onnx", "fp32", {})
