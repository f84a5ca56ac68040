"""The first rung of the ladder: the teacher with its zero-shot head.

Shape suffixes: N images, H rows, W columns, C = 3 channels (RGB), D embedding width, K classes.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from dfkd_edge.interfaces import ModelOutputs
from dfkd_edge.teacher import Teacher


class TeacherRunner:
    """Runs the teacher on uint8 images, as the other rungs are run."""

    name = "teacher"

    def __init__(self, teacher: Teacher) -> None:
        """Take a loaded teacher."""
        self._teacher = teacher

    @torch.inference_mode()
    def __call__(self, image_NHWC: NDArray[np.uint8]) -> ModelOutputs:
        """Classify RGB images; the teacher resizes them to its own side."""
        image_NCHW = torch.from_numpy(image_NHWC).to(self._teacher.device).permute(0, 3, 1, 2)
        embedding_ND = self._teacher.embed_images(image_NCHW.float() / 255)
        logits_NK = self._teacher.logits(embedding_ND).float()
        return ModelOutputs(
            logits_NK.cpu().numpy(),
            logits_NK.softmax(1).cpu().numpy(),
            embedding_ND.cpu().numpy(),
        )
