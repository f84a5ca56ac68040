"""Everything that can be a rung of the ladder, run on uint8 images: networks, graphs, engines.

Shape suffixes: N images, H rows, W columns, C = 3 channels (RGB), D embedding width, K classes.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfkd_edge.interfaces import ModelOutputs, Runner
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.runtime.preprocess import resized_images
from dfkd_edge.runtime.session import Session


class EmbeddingClassifier(Protocol):
    """What teacher and student have in common."""

    @property
    def head_KD(self) -> Tensor:
        """Unit class text vectors."""

    @property
    def embed(self) -> Callable[[Tensor], Tensor]:
        """Unit embeddings [N, D] of RGB images in [0, 1]."""

    @property
    def logits(self) -> Callable[[Tensor], Tensor]:
        """Class logits [N, K] of unit embeddings."""


class TeacherNetwork:
    """The teacher under the names that the student has."""

    def __init__(self, teacher: Teacher) -> None:
        """Take a loaded teacher."""
        self.head_KD, self.embed, self.logits = (
            teacher.head_KD,
            teacher.embed_images,
            teacher.logits,
        )


class TorchRunner:
    """Runs the teacher or the student."""

    def __init__(self, name: str, network: EmbeddingClassifier) -> None:
        """Take a network that is ready to classify; it resizes images to its own side."""
        self.name, self._network = name, network

    @torch.inference_mode()
    def __call__(self, image_NHWC: NDArray[np.uint8]) -> ModelOutputs:
        """Classify RGB images."""
        pixels = torch.from_numpy(np.ascontiguousarray(image_NHWC)).to(self._network.head_KD.device)
        embedding_ND = self._network.embed(pixels.permute(0, 3, 1, 2).float() / 255)
        logits_NK = self._network.logits(embedding_ND).float()
        return ModelOutputs(
            logits_NK.cpu().numpy(),
            logits_NK.softmax(1).cpu().numpy(),
            embedding_ND.float().cpu().numpy(),
        )


class SessionRunner:
    """Runs a converted model through a session of the device runtime: a graph or an engine."""

    def __init__(self, name: str, session: Session) -> None:
        """Take an open session and the name of its rung."""
        self.name, self._session = name, session
        self.computes_in_float = bool(session.settings.get("int8_in_float"))

    def __call__(self, image_NHWC: NDArray[np.uint8]) -> ModelOutputs:
        """Classify RGB images of the model's own size."""
        return ModelOutputs(*self._session.run(np.ascontiguousarray(image_NHWC)))


class SizedRunner:
    """Resizes images before they are run, as the ladder does: of one image, one answer."""

    def __init__(self, runner: Runner, side_px: int) -> None:
        """Take a runner and the side that it is given."""
        self.name, self._runner, self._side_px = runner.name, runner, side_px

    def __call__(self, image_NHWC: NDArray[np.uint8]) -> ModelOutputs:
        """Classify RGB images of any side."""
        return self._runner(resized_images(image_NHWC, self._side_px))
