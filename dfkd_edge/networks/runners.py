"""Everything that can be a rung of the ladder, run on uint8 images: networks, graphs, engines.

Shape suffixes: N images, H rows, W columns, C = 3 channels (RGB), D embedding width, K classes.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from dfkd_edge.artifacts import Floats
from dfkd_edge.interfaces import ModelOutputs
from dfkd_edge.networks.memory import Parts, in_parts, say_nothing
from dfkd_edge.networks.students import Student
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.runtime.session import Session

IMAGES_TOGETHER = 4096
"""More than a ladder ever gives at once: parts are for where memory ran out."""


class TorchRunner:
    """Runs the teacher or the student, which resize images to their own side."""

    def __init__(
        self, name: str, network: Teacher | Student, tell: Callable[[str], None] = say_nothing
    ) -> None:
        """Tell where memory ran out, and images go on in smaller parts."""
        self.name, self._network = name, network
        device = network.head_KD.device
        self._parts = Parts(f"running the {name}", IMAGES_TOGETHER, str(device), tell)

    @torch.inference_mode()
    def __call__(self, image_NHWC: NDArray[np.uint8]) -> ModelOutputs:
        """Classify RGB images."""
        made = in_parts(len(image_NHWC), self._parts, lambda rows: self._run(image_NHWC[rows]))
        logits, probabilities, embedding = map(np.concatenate, zip(*made, strict=True))
        return ModelOutputs(logits, probabilities, embedding)

    def _run(self, image_NHWC: NDArray[np.uint8]) -> tuple[Floats, Floats, Floats]:
        # torch takes no array with negative strides, as a flipped picture has
        pixels = torch.from_numpy(np.ascontiguousarray(image_NHWC)).to(self._network.head_KD.device)
        embedding_ND = self._network.embed_images(pixels.permute(0, 3, 1, 2).float() / 255)
        logits_NK = self._network.logits(embedding_ND).float()
        return (
            logits_NK.cpu().numpy(),
            logits_NK.softmax(1).cpu().numpy(),
            embedding_ND.float().cpu().numpy(),
        )


class SessionRunner:
    """Runs a converted model through a session of the device runtime: a graph or an engine."""

    def __init__(self, name: str, session: Session) -> None:
        self.name, self._session = name, session
        self.computes_in_float = bool(session.settings.get("int8_in_float"))

    def __call__(self, image_NHWC: NDArray[np.uint8]) -> ModelOutputs:
        """Classify RGB images of the model's own size."""
        return ModelOutputs(*self._session.run(np.ascontiguousarray(image_NHWC)))
