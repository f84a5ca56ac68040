"""What the files of a runtime are written from.

Shape suffixes: N images, S side, C = 3 channels (RGB).
"""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfkd_edge.handover.profile import RuntimeProfile
from dfkd_edge.runtime.confidence import Confidence
from dfkd_edge.runtime.preprocess import IMAGENET
from dfkd_edge.target_profiles.profile import Feed, Precision, TargetProfile

BYTES_LAST: tuple[Feed, ...] = ("bundle", "pixels")
"""Feeds of NHWC in the type of the bundle's own graph."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Handover:
    """One proven model, for one runtime on one target."""

    profile: RuntimeProfile
    version: str  # Of the runtime, on this target
    target: TargetProfile
    classes: tuple[str, ...]  # In the order of the outputs
    side_px: int
    batch: tuple[int, int, int]  # Smallest, usual and largest
    precision: Precision
    """What the runtime is to compute in: `fp16` without a graph of its own is a flag."""
    proven: Precision  # What the bundle was measured in
    graph: Precision  # Of the file that it reads
    content: str  # Hash of that file and of what an engine of it is built with
    embed_dim: int  # Width of the output `embedding`, which the bundle's own graph has
    confidence: Confidence
    has_failed: bool = False  # What the gate said of the bundle

    @property
    def model(self) -> str:
        """The graph's file, seen from the runtime's folder."""
        return self.profile.model_of(self.content) or f"../../model.{self.graph}.onnx"

    @property
    def plan(self) -> str:
        """The engine that trtexec builds beside the graph, where the runtime builds none."""
        return str(PurePosixPath(self.model).with_name(f"model-{self.content}.plan"))

    @property
    def is_dynamic(self) -> bool:
        """Whether the graph takes batches of several sizes."""
        return self.batch[0] != self.batch[2]

    @property
    def release(self) -> tuple[int, ...]:
        """The runtime's version as numbers, which decide what its configuration may hold."""
        return tuple(int(part) for part in self.version.split(".") if part.isdigit())

    @property
    def feed_dtype(self) -> str:
        """Type of the input tensor."""
        return self.target.graph_input if self.profile.feed in BYTES_LAST else "float32"

    @property
    def layout(self) -> str:
        """Order of the input's dimensions."""
        return "NHWC" if self.profile.feed in BYTES_LAST else "NCHW"

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape of one input, without the batch."""
        side = self.side_px
        return (side, side, 3) if self.layout == "NHWC" else (3, side, side)

    @property
    def dims(self) -> tuple[int, ...]:
        """Shape of the input as the graph states it: with the batch, unless that is dynamic."""
        return self.input_shape if self.is_dynamic else (self.batch[2], *self.input_shape)

    def filled(self, text: str) -> str:
        """Put what is known of the input into a text of the profile."""
        dims = ", ".join(map(str, self.dims))
        return text.format(side=self.side_px, dtype=self.feed_dtype, dims=dims)


def as_handed(image_NSSC: NDArray[np.uint8], feed: Feed, dtype: str) -> NDArray[Any]:
    """Turn RGB images into the tensor that a runtime must hand to the network."""
    if feed in BYTES_LAST:
        return image_NSSC.astype(dtype)
    planes_NCSS: NDArray[Any] = image_NSSC.transpose(0, 3, 1, 2).astype(np.float32)
    if feed == "imagenet":
        _, mean, deviation = IMAGENET
        mean_C11, deviation_C11 = (
            np.array(v, np.float32)[:, None, None] for v in (mean, deviation)
        )
        planes_NCSS = (planes_NCSS / 255 - mean_C11) / deviation_C11
    return np.ascontiguousarray(planes_NCSS)
