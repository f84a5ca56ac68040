"""Which surrogate images a step learns from.

A batch depends on the seed, the step and, for hard images, on what the student got wrong before.

Shape suffixes: N images of a batch, R images to train on, C = 3 channels, H rows, W columns.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfkd_edge.artifacts import SurrogateSet
from dfkd_edge.seeding import derived_seed

STAGE = "student"
CLASS_SHARE = 0.5  # Half of a batch is drawn evenly over classes, half evenly over images
HARD_POOL = 0.1  # Hard images are drawn evenly from this share of the images seen so far (ours)

Rows = NDArray[np.int64]


def draw_rows(
    surrogates: SurrogateSet,
    row_R: Rows,
    step: int,
    batch_size: int,
    seed: int,
    balanced_styles: bool = False,
) -> Rows:
    """Draw the images of one step, rows of the surrogate set, with replacement."""
    rng = np.random.default_rng(derived_seed(seed, STAGE, "rows", step))
    by_image_N = rng.choice(row_R, batch_size)
    label_R = surrogates.class_index[row_R]
    wanted_N = rng.choice(np.unique(label_R), batch_size)
    position_N = rng.random(batch_size)
    style_R = surrogates.style_index[row_R] if balanced_styles else np.zeros_like(label_R)
    by_class_N = row_R[_of_class(label_R, style_R, wanted_N, position_N)]
    chosen_N: Rows = np.where(rng.random(batch_size) < CLASS_SHARE, by_class_N, by_image_N)
    return chosen_N


def _of_class(
    label_R: Rows, style_R: Rows, wanted_N: Rows, position_N: NDArray[np.float64]
) -> Rows:
    """Find images of wanted classes by relative positions in [0, 1).

    Each style that a class has takes an equal part of [0, 1), and each image an equal part of that.
    """
    order_R = np.lexsort((style_R, label_R))
    pair_R = label_R[order_R] * (style_R.max() + 1) + style_R[order_R]
    pairs, start, size = np.unique(pair_R, return_index=True, return_counts=True)
    label_of_pair = pairs // (style_R.max() + 1)
    first_N = np.searchsorted(label_of_pair, wanted_N, "left")
    last_N = np.searchsorted(label_of_pair, wanted_N, "right")
    scaled_N = position_N * (last_N - first_N)
    style_N = scaled_N.astype(np.int64)
    within_N = ((scaled_N - style_N) * size[first_N + style_N]).astype(np.int64)
    index_N: Rows = order_R[start[first_N + style_N] + within_N]
    return index_N


def pixels(surrogates: SurrogateSet, row_N: Rows) -> Tensor:
    """Read images as float image_NCHW in [0, 1]."""
    image_NHWC = torch.from_numpy(surrogates.images.rows(row_N))
    return image_NHWC.permute(0, 3, 1, 2).float() / 255


def draw_batch(
    surrogates: SurrogateSet, row_R: Rows, step: int, batch_size: int, seed: int
) -> Tensor:
    """Draw the images of one step as image_NCHW in [0, 1]."""
    return pixels(surrogates, draw_rows(surrogates, row_R, step, batch_size, seed))


class HardImages:
    """Remembers how far student and teacher were apart on each image when it was last seen."""

    def __init__(self, num_images: int, share: float, seed: int) -> None:
        """Draw `share` of each batch from the hardest images; 0 remembers nothing."""
        self.share, self._seed = share, seed
        unseen = {"disagreement": torch.full((num_images,), -1.0)} if share else {}
        self.tensors: dict[str, Tensor] = unseen
        """For the checkpoint: the last feature distance of each image, -1 where unseen."""

    def replace(self, row_N: Rows, step: int) -> Rows:
        """Replace the first images of a batch by hard ones, once some images were seen."""
        if not self.share:
            return row_N
        disagreement = self.tensors["disagreement"].numpy()
        seen = np.flatnonzero(disagreement >= 0)
        if not len(seen):
            return row_N
        pool_size = max(1, round(HARD_POOL * len(seen)))
        pool = seen[np.argsort(-disagreement[seen], kind="stable")[:pool_size]]
        rng = np.random.default_rng(derived_seed(self._seed, STAGE, "hard", step))
        hard = rng.choice(pool, round(self.share * len(row_N)))
        return np.concatenate([hard, row_N[len(hard) :]])

    def remember(self, row_N: Rows, distance_N: Tensor) -> None:
        """Note the feature distance of the views of a batch."""
        for disagreement in self.tensors.values():
            numbers = disagreement.numpy()
            numbers[row_N] = -1.0  # of several views of one image, the worst counts
            np.maximum.at(numbers, row_N, distance_N.float().cpu().numpy())
