"""Which surrogate images a step learns from.

A batch depends on the seed, the step and, for hard images, on what the student got wrong before.

Shape suffixes: N images of a batch, R images to train on.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfkd_edge.artifacts import Ints, SurrogateSet
from dfkd_edge.networks.transfer import sent
from dfkd_edge.seeding import derived_seed

STAGE = "student"
CLASS_SHARE = 0.5  # Half of a batch is drawn evenly over classes, half evenly over images
HARD_POOL = 0.1  # Hard images are drawn evenly from this share of the images seen so far (ours)


class RowDraws:
    """Draws the images of steps, rows of the surrogate set that are not held out."""

    def __init__(self, surrogates: SurrogateSet, seed: int, balanced_styles: bool = False) -> None:
        """Sort the images by class, and by style where styles are to be balanced, once."""
        self.row_R = np.flatnonzero(~surrogates.is_heldout)
        self._seed = seed
        label_R = surrogates.class_index[self.row_R]
        style_R = surrogates.style_index[self.row_R]
        style_R = style_R if balanced_styles else np.zeros_like(label_R)
        self._labels = np.unique(label_R)
        self._order_R = np.lexsort((style_R, label_R))
        num_styles = style_R.max() + 1
        pair_R = label_R[self._order_R] * num_styles + style_R[self._order_R]
        pairs, self._start, self._size = np.unique(pair_R, return_index=True, return_counts=True)
        self._label_of_pair = pairs // num_styles

    def draw(self, step: int, num: int) -> Ints:
        """Draw the images of one step, with replacement."""
        rng = np.random.default_rng(derived_seed(self._seed, STAGE, "rows", step))
        by_image_N = rng.choice(self.row_R, num)
        wanted_N = rng.choice(self._labels, num)
        by_class_N = self.row_R[self._of_class(wanted_N, rng.random(num))]
        chosen_N: Ints = np.where(rng.random(num) < CLASS_SHARE, by_class_N, by_image_N)
        return chosen_N

    def _of_class(self, wanted_N: Ints, position_N: NDArray[np.float64]) -> Ints:
        """Find images of wanted classes by relative positions in [0, 1).

        Each style that a class has takes an equal part of [0, 1), and each image an equal part of
        that.
        """
        first_N = np.searchsorted(self._label_of_pair, wanted_N, "left")
        last_N = np.searchsorted(self._label_of_pair, wanted_N, "right")
        scaled_N = position_N * (last_N - first_N)
        style_N = scaled_N.astype(np.int64)
        within_N = ((scaled_N - style_N) * self._size[first_N + style_N]).astype(np.int64)
        index_N: Ints = self._order_R[self._start[first_N + style_N] + within_N]
        return index_N


class HardImages:
    """Remembers how far student and teacher were apart on each image when it was last seen.

    The table lies on the device and changes with every step; the host draws from its copy, which
    `catch_up` renews: reading it at every step would wait for the device.
    """

    def __init__(self, num_images: int, share: float, seed: int, device: torch.device) -> None:
        """Draw `share` of each batch from the hardest images; 0 remembers nothing."""
        self.share, self._seed = share, seed
        self.tensors: dict[str, Tensor] = {}
        """For the checkpoint: the last feature distance of each image, -1 where unseen."""
        if share:
            self.tensors["disagreement"] = torch.full((num_images,), -1.0, device=device)
            self.tensors["known_disagreement"] = torch.full((num_images,), -1.0)

    def replace(self, row_N: Ints, step: int) -> Ints:
        """Replace the first images of a batch by hard ones, once some are known."""
        if not self.share:
            return row_N
        disagreement = self.tensors["known_disagreement"].numpy()
        seen = np.flatnonzero(disagreement >= 0)
        if not len(seen):
            return row_N
        pool_size = max(1, round(HARD_POOL * len(seen)))
        pool = seen[np.argsort(-disagreement[seen], kind="stable")[:pool_size]]
        rng = np.random.default_rng(derived_seed(self._seed, STAGE, "hard", step))
        hard = rng.choice(pool, round(self.share * len(row_N)))
        return np.concatenate([hard, row_N[len(hard) :]])

    def remember(self, row_N: Ints, distance_N: Tensor) -> None:
        """Note the feature distance of the views of a batch, which are on the device."""
        if self.share:
            table = self.tensors["disagreement"]
            index_N = sent(torch.from_numpy(row_N), table.device)
            # of several views of one image, the worst counts
            table.index_fill_(0, index_N, -1.0)
            table.scatter_reduce_(0, index_N, distance_N.float(), "amax")

    def catch_up(self) -> None:
        """Let the host know what was remembered; waits for the device."""
        if self.share:
            self.tensors["known_disagreement"].copy_(self.tensors["disagreement"])
