"""A fixed number of views of each image, which a large teacher labels once.

View v of image i follows from (seed, i, v) alone: training redraws it and reads what the teacher
saw in it. The embeddings lie on disk in parts that are written whole, so a run that was stopped
goes on with the next one, and are read by rows.

Shape suffixes: N views of a batch, P views of a part, R images to train on, D embedding width.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dfkd_edge.artifacts import Ints, read_metadata, save_tensors
from dfkd_edge.config.settings import DistillationConfig
from dfkd_edge.distillation.rows import STAGE
from dfkd_edge.interfaces import Reporter
from dfkd_edge.machine.ranks import ALONE, Ranks
from dfkd_edge.networks.view_keys import view_keys
from dfkd_edge.runs.row_stores import JoinedRows, stored_tensors
from dfkd_edge.runs.shared import await_seen
from dfkd_edge.seeding import derived_seed

AUTO = -1
USUAL_NUM = 10  # Views of an image, where the setting leaves it to us (ours)
LARGE_TEACHER = 5
"""Passes of the student that a large teacher's takes the operations of: labelling is then more than
half of a step, whose learning takes three. The embedded one takes four (ours)."""
SPARED = 2  # Storing must spare so many passes for each that it takes (ours)
PART_VIEWS = 8_192  # 12 MB of embeddings 768 wide: seconds of labelling on any card
MAX_VIEWS = 1 << 10  # Of an image: as many numbers as its keys have place for


def num_stored_views(
    config: DistillationConfig, num_images: int, count: Callable[[], tuple[int, int]]
) -> int:
    """How many views of each image are labelled once; 0 labels the views of every step.

    Left to us, a large teacher's are. A short run sees fewer views than would be stored: it labels
    its own.

    Args:
        config: names a number, or leaves it to us.
        num_images: to train on.
        count: counts the operations of an image in teacher and student, where they decide.
    """
    if config.num_stored_views != AUTO:
        return config.num_stored_views
    if config.num_steps * config.batch_size <= SPARED * USUAL_NUM * num_images:
        return 0
    of_teacher, of_student = count()
    return USUAL_NUM if of_teacher > LARGE_TEACHER * of_student else 0


class StoredViews:
    """The views of a training's images, numbered image after image, and their embeddings."""

    def __init__(self, folder: Path, key: str, row_R: Ints, num_views: int, seed: int) -> None:
        """Name the folder of the parts; `key` is of all that the embeddings depend on."""
        self._folder, self._key, self.row_R, self._num_views = folder, key, row_R, num_views
        self._seed = seed
        self._store: JoinedRows[np.float16] | None = None

    def __len__(self) -> int:
        """Return the number of views of all images."""
        return len(self.row_R) * self._num_views

    def draw(self, row_N: Ints, step: int) -> Ints:
        """Draw a view of each image; returns their numbers."""
        rng = np.random.default_rng(derived_seed(self._seed, STAGE, "which", step))
        image_N = np.searchsorted(self.row_R, row_N)
        number_N: Ints = image_N * self._num_views + rng.integers(self._num_views, size=len(row_N))
        return number_N

    def rows(self, number_N: Ints) -> Ints:
        """Find the images of views."""
        found: Ints = self.row_R[number_N // self._num_views]
        return found

    def keys(self, number_N: Ints) -> Tensor:
        """Keys of views: of the image's row and the number of the view, whatever else there is."""
        of_image_N = self.rows(number_N) * MAX_VIEWS + number_N % self._num_views
        return view_keys(derived_seed(self._seed, STAGE, "stored"), torch.from_numpy(of_image_N))

    def embeddings(self, number_N: Ints) -> Tensor:
        """Read what the teacher saw in views, embedding_ND; they were written before."""
        assert self._store is not None
        return torch.from_numpy(self._store.rows(number_N)).float()

    def write(
        self,
        embed: Callable[[Ints], Tensor],
        batch_size: int,
        reporter: Reporter,
        ranks: Ranks = ALONE,
    ) -> None:
        """Embed the views of every part that is not there, `batch_size` at a time.

        Ranks split the parts, and then read them all.
        """
        starts = range(0, len(self), PART_VIEWS)
        paths = [self._folder / f"part-{number:05d}.safetensors" for number in range(len(starts))]
        ours = range(ranks.index, len(paths), ranks.count)
        missing = [number for number in ours if not self._is_there(paths[number])]
        if missing:
            done = len(ours) - len(missing)
            with reporter.stage("labelling views", len(ours), done) as progress:
                for number in missing:
                    ends = min(starts[number] + PART_VIEWS, len(self))
                    number_P = np.arange(starts[number], ends)
                    batches = np.split(number_P, range(batch_size, len(number_P), batch_size))
                    # on the host when a part is whole: a card is waited for once a part
                    embedding_PD = torch.cat([embed(number_N) for number_N in batches])
                    tensors = {"embeddings": embedding_PD.half().cpu().numpy()}
                    save_tensors(paths[number], tensors, {"key": self._key})
                    progress.advance()
        ranks.wait()
        for path in paths:
            await_seen(path, partial(self._is_there, path), ranks.name, "another rank")
        self._store = JoinedRows([stored_tensors(path)["embeddings"] for path in paths])

    def _is_there(self, path: Path) -> bool:
        metadata = read_metadata(path)
        return metadata is not None and metadata.get("key") == self._key
