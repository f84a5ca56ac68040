"""The teacher as an ONNX graph, for one purpose: its time in the runtime that students are run in.

In torch the teacher computes in bfloat16 where the CPU can, and the student in float32: their times
there compare two precisions.

Shape suffixes: N images, H rows, W columns, C = 3 channels (RGB), D embedding width, K classes.
"""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dfkd_edge.artifacts import ModelFile
from dfkd_edge.networks.teacher import Teacher

OUTPUTS = ("logits", "probabilities", "embedding")


class TeacherGraph(nn.Module):
    """The image tower with the inputs and outputs of an exported student."""

    mean: Tensor
    std: Tensor
    head_KD: Tensor

    def __init__(self, teacher: Teacher) -> None:
        """Take the tower and the head; nothing is copied."""
        super().__init__()
        self.tower: Any = teacher.model.visual
        self.logit_scale = teacher.logit_scale
        self.register_buffer("mean", teacher.mean)
        self.register_buffer("std", teacher.std)
        self.register_buffer("head_KD", teacher.head_KD)

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
    side_px, path = teacher.image_size_px, folder / "teacher.fp32.onnx"
    image_NHWC = torch.zeros(1, side_px, side_px, 3, dtype=torch.uint8, device=teacher.device)
    is_fused = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)  # ONNX has no fused attention
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                TeacherGraph(teacher).eval(),
                (image_NHWC,),
                path,
                input_names=["image"],
                output_names=list(OUTPUTS),
                dynamo=False,
            )
    finally:
        torch.backends.mha.set_fastpath_enabled(is_fused)
    return ModelFile(path, "onnx", "fp32", {})
