"""What each step learns from: rows of images, where they lie, and the keys of their views.

Everything is drawn on the host for the whole batch, and follows from the seed and the step, so that
processes which share a batch draw alike and take their rows of it.

Shape suffixes: N images of a batch, R images to train on, M donors of statistics, C = 3 channels,
H rows, W columns, D embedding width.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dfkd_edge.artifacts import Ints, RowStore
from dfkd_edge.distillation.rows import STAGE, RowDraws
from dfkd_edge.distillation.stored_views import StoredViews
from dfkd_edge.networks.memory import pool_budget
from dfkd_edge.networks.transfer import free_bytes, sent, settle_thread
from dfkd_edge.networks.view_keys import luck, view_keys
from dfkd_edge.networks.views import NUM_GEOMETRY, ViewPlan, Views, channel_statistics, moved
from dfkd_edge.runs.row_stores import blocks
from dfkd_edge.seeding import derived_seed

NUM_DONORS, DONOR_PX = 256, 64
"""Views whose colours other views take on; a side at which their statistics cost nothing."""


def as_pixels(image_NHWC: Tensor) -> Tensor:
    """Turn bytes into image_NCHW in [0, 1]."""
    return image_NHWC.permute(0, 3, 1, 2).float() / 255


class ImagePool:
    """Images by rows, as bytes on the device: of a pool there where all fit, else from the host."""

    def __init__(self, images: RowStore[np.uint8], device: torch.device, room_bytes: int) -> None:
        """Load all images if they take no more than `room_bytes`."""
        self._store, self.device = images, device
        self._pool: Tensor | None = None
        if images.nbytes <= room_bytes:
            self._pool = torch.empty(images.shape, dtype=torch.uint8, device=device)
            for row_N in blocks(np.arange(len(images)), 1024):
                part_NHWC = torch.from_numpy(images.rows(row_N))
                self._pool[row_N[0] : row_N[-1] + 1].copy_(part_NHWC)

    def rows(self, row_N: Ints) -> Tensor:
        """Return image_NHWC; nothing waits for the device."""
        if self._pool is not None:
            return self._pool.index_select(0, sent(torch.from_numpy(row_N), self.device))
        return sent(torch.from_numpy(self._store.rows(row_N)), self.device)


def open_pool(images: RowStore[np.uint8], device: torch.device) -> ImagePool:
    """Open the images of a training, on its card if a share of the free memory holds them."""
    return ImagePool(images, device, pool_budget(free_bytes(device)))


def make_views(
    draws: RowDraws, pool: ImagePool, size_px: int, style_probability: float, seed: int
) -> Views:
    """Prepare views of a training's images, some of which give their statistics to others."""
    rows_seed = derived_seed(seed, STAGE, "donors")
    row_M = np.random.default_rng(rows_seed).choice(draws.row_R, NUM_DONORS)
    key_M = sent(view_keys(rows_seed, torch.arange(NUM_DONORS)), pool.device)
    image_MCHW = as_pixels(pool.rows(row_M))
    donor_MCHW = moved(image_MCHW, DONOR_PX, luck(key_M, 0, NUM_GEOMETRY))
    return Views(size_px, style_probability, channel_statistics(donor_MCHW))


class Drawn(NamedTuple):
    """The views of a step, on the host."""

    row_N: Ints
    key_N: Tensor
    stored_N: Ints | None = None  # Number of each among the stored views

    def part(self, rows: slice) -> "Drawn":
        """Return some of them: each view is what it is in the whole."""
        stored_N = None if self.stored_N is None else self.stored_N[rows]
        return Drawn(self.row_N[rows], self.key_N[rows], stored_N)


@dataclass(frozen=True, slots=True)
class Batch:
    """The views of a step, on the device."""

    image_NHWC: Tensor
    plan: ViewPlan
    teacher_ND: Tensor | None  # What the teacher saw in these very views; None where it must look


@dataclass(frozen=True, slots=True)
class Coming:
    """This rank's rows of a batch, which are being prepared."""

    drawn: Drawn
    begun: Mapping[tuple[int, int], Future[Batch]]
    prepare: Callable[[Drawn], Batch]

    def part(self, rows: slice) -> Batch:
        """Return some rows: prepared now if parts were halved since."""
        begun = self.begun.get((rows.start, rows.stop))
        return begun.result() if begun else self.prepare(self.drawn.part(rows))


class Batches:
    """Draws and prepares batches: on an accelerator the next one while a step runs."""

    def __init__(self, pool: ImagePool, views: Views, seed: int) -> None:
        self._pool, self.views, self._seed = pool, views, seed
        self.stored: StoredViews | None = None
        """Where the views of an image are a fixed number that was labelled before."""
        self._ahead: ThreadPoolExecutor | None = None

    def draw(self, row_N: Ints, step: int) -> Drawn:
        """Draw a view of each row: a stored one, or one that nobody has seen."""
        if self.stored:
            stored_N = self.stored.draw(row_N, step)
            return Drawn(row_N, self.stored.keys(stored_N), stored_N)
        seed = derived_seed(self._seed, STAGE, "views", step)
        return Drawn(row_N, view_keys(seed, torch.arange(len(row_N))))

    def prepare(self, drawn: Drawn) -> Batch:
        """Read the images and send all to the device."""
        device, teacher_ND = self._pool.device, None
        if self.stored and drawn.stored_N is not None:
            teacher_ND = sent(self.stored.embeddings(drawn.stored_N), device)
        image_NHWC = self._pool.rows(drawn.row_N)
        return Batch(image_NHWC, self.views.plan(drawn.key_N), teacher_ND)

    def view(self, batch: Batch) -> Tensor:
        """Make the views of a batch, view_NCHW in [0, 1]."""
        view_NCHW = self.views(as_pixels(batch.image_NHWC), batch.plan)
        return view_NCHW.contiguous(memory_format=torch.channels_last)

    @contextlib.contextmanager
    def reading_ahead(self) -> Iterator[None]:
        """Prepare batches in a thread; a CPU, which has no time to spare, when they are needed."""
        device = self._pool.device
        if device.type == "cpu":
            yield
            return
        with ThreadPoolExecutor(1, "batches", settle_thread, (device,)) as self._ahead:
            yield

    def begin(self, drawn: Drawn, parts: Iterable[slice]) -> "Coming":
        """Begin to prepare a batch in parts."""
        begun = {(rows.start, rows.stop): self._begin(drawn.part(rows)) for rows in parts}
        return Coming(drawn, begun, self.prepare)

    def _begin(self, drawn: Drawn) -> Future[Batch]:
        if self._ahead:
            return self._ahead.submit(self.prepare, drawn)
        made: Future[Batch] = Future()
        made.set_result(self.prepare(drawn))
        return made
