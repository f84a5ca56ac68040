"""The images that every rung is measured on: labelled pictures, or held-out surrogates in a suite
of clean and corrupted views.

Shape suffixes: N images, H rows, W columns, C = 3 channels (RGB).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dfkd_edge.artifacts import RowStore, SurrogateSet
from dfkd_edge.errors import ConfigError
from dfkd_edge.pictures.labelled import find_labelled, image_digests
from dfkd_edge.results.ladder import HELDOUT_DOMAIN
from dfkd_edge.results.wording import Metric
from dfkd_edge.runs.row_stores import ArrayRows, ChosenRows, blocks
from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.faults import Fault
from dfkd_edge.runtime.preprocess import read_picture, resized_images
from dfkd_edge.seeding import derived_seed
from dfkd_edge.validation.corruptions import GROUPS, Images, corrupted_group

GOLDEN_DOMAIN = "golden images"
VIEWS_DOMAIN = "mirrored and cropped"
"""Views of the held-out surrogates: each is shown whole once, which is too seldom for a gate."""
WANTED_IMAGES = 480
"""Images a domain of the built-in suite: one flip is then a fifth of a point (ours)."""
MAX_VIEWS = 10
"""Views of one held-out image at most: more of the same picture carry little news (ours)."""
MEASURED, MORE_ROUND, CHOOSING_ROUND = range(3)
"""Rounds of the suite: what the proof shows, what it adds, and what the repair is chosen on."""
MORE = 2
"""Times as many images as at first, for a domain whose drop is over the limit but may be chance."""
CORRUPTED = "noise, blur, weather and digital corruptions"


@dataclass(frozen=True, slots=True)
class Batch:
    """A few images at their own size and their classes."""

    at: Callable[[int], Images]  # Side in pixels -> uint8 [N, side, side, 3]
    labels: NDArray[np.int64]
    pictures: NDArray[np.int64]
    """Number of the picture that each image is a view of, the same in all domains."""


@dataclass(frozen=True, slots=True)
class DomainPlan:
    """A domain that would be measured on."""

    name: str
    num_images: int
    corruptions: tuple[str, ...] = ()  # What corrupts its images, in turn


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """Domains and what counts as right in them."""

    sources: tuple[StoreSource | FolderSource, ...]
    metric: Metric
    """`top1` where labels are true, `agreement` with the teacher where there are none."""
    description: str  # For the user
    more: Callable[[], EvaluationSet] | None = None
    """Fresh images for the domains of views, MORE times as many; None where the images are all
    there are. A drop within noise is measured again with them, once."""

    def repeated(self, domains: Sequence[str]) -> EvaluationSet:
        """Add the images that an earlier proof needed in some domains; no more looks follow."""
        if not (domains and self.more):
            return self
        return replace(self.joined(self.more().only(domains)), more=None)

    def only(self, domains: Sequence[str]) -> EvaluationSet:
        """Keep the images of some domains."""
        sources = tuple(source for source in self.sources if source.name in domains)
        return replace(self, sources=sources)

    def joined(self, other: EvaluationSet) -> EvaluationSet:
        """Add the images of another set; sources of one name are one domain."""
        return replace(self, sources=(*self.sources, *other.sources))

    @property
    def num_images(self) -> int:
        """Images of all domains."""
        return sum(len(source) for source in self.sources)


class StoreSource:
    """The images of a domain, read by rows."""

    def __init__(
        self,
        name: str,
        images: RowStore[np.uint8],
        labels: NDArray[np.int64],
        pictures: NDArray[np.int64] | None = None,
    ) -> None:
        """Keep the store; without `pictures` each image is its own."""
        self.name, self._images, self._labels = name, images, labels
        self._pictures = np.arange(len(labels)) if pictures is None else pictures

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._images)

    def batches(self, size: int, unreadable: list[Path]) -> Iterator[Batch]:
        """Read the images in order; nothing is ever unreadable."""
        for row_R in blocks(np.arange(len(self)), size):
            part_RHWC = self._images.rows(row_R)
            yield Batch(  # the default binds the part now; the loop goes on before it is used
                lambda side_px, part=part_RHWC: resized_images(part, side_px),  # type: ignore[misc]
                self._labels[row_R],
                self._pictures[row_R],
            )


class ArraySource(StoreSource):
    """The images of a domain in memory."""

    def __init__(
        self,
        name: str,
        image_NHWC: Images,
        labels: NDArray[np.int64],
        pictures: NDArray[np.int64] | None = None,
    ) -> None:
        """Keep the arrays; without `pictures` each image is its own."""
        super().__init__(name, ArrayRows(image_NHWC), labels, pictures)


@dataclass(frozen=True, slots=True)
class FolderSource:
    """Labelled pictures of a domain on disk, each read once for all rungs."""

    name: str
    files: tuple[tuple[Path, int, int], ...]
    """Each with its label and the number of its picture, which no other domain has."""
    sides_px: tuple[int, ...]  # The different sizes that rungs will ask for

    def __len__(self) -> int:
        """Return the number of files, unreadable ones too."""
        return len(self.files)

    def batches(self, size: int, unreadable: list[Path]) -> Iterator[Batch]:
        """Read files in order; what cannot be read is appended to `unreadable`."""
        for start in range(0, len(self), size):
            read = []
            for file, label, number in self.files[start : start + size]:
                try:
                    read.append(([read_picture(file, s) for s in self.sides_px], label, number))
                except Fault:
                    unreadable.append(file)
            if read:
                pictures, labels, numbers = zip(*read, strict=True)
                stacked = map(np.stack, zip(*pictures, strict=True))
                by_side = dict(zip(self.sides_px, stacked, strict=True))
                yield Batch(by_side.__getitem__, np.array(labels), np.array(numbers))


def labelled_pictures(
    root: Path, class_names: tuple[str, ...], sides_px: tuple[int, ...]
) -> EvaluationSet:
    """Take DIR/[domain/]class/ as it is.

    Raises:
        UsageError: the folder is missing or holds no picture of any class.
    """
    found, numbers, sources = find_labelled(root, class_names), itertools.count(), []
    for domain in found.domains:
        files = zip(domain.files, domain.labels, numbers, strict=False)  # files end before numbers
        sources.append(FolderSource(domain.name, tuple(files), tuple(sorted(set(sides_px)))))
    description = f"labelled pictures of {root}: {found.description}"
    return EvaluationSet(tuple(sources), "top1", description)


def heldout_source(surrogates: SurrogateSet) -> StoreSource:
    """Take the held-out surrogates whole, each once."""
    rows = np.flatnonzero(surrogates.is_heldout)
    images = ChosenRows(surrogates.images, rows)
    return StoreSource(HELDOUT_DOMAIN, images, surrogates.class_index[rows], pictures=rows)


def _views(image_NHWC: Images, num_views: int, rng: np.random.Generator | None) -> Images:
    """Make several views of each image: mirrored every other time, cropped at random.

    Without `rng` the first two views stay whole.
    """
    height, width = image_NHWC.shape[1:3]
    crops = rng or np.random.default_rng(0)
    views = []
    for number in range(num_views):
        view_NHWC = image_NHWC
        if rng is not None or number >= 2:
            top, left = crops.integers(0, max(1, height // 8), 2)
            side = height - height // 8
            right = left + width - width // 8
            view_NHWC = np.ascontiguousarray(view_NHWC[:, top : top + side, left:right])
            view_NHWC = resized_images(view_NHWC, height)
        views.append(view_NHWC[:, :, ::-1] if number % 2 else view_NHWC)
    return np.ascontiguousarray(np.concatenate(views))


def _suite_shape(num_heldout: int, size: float) -> tuple[int, int]:
    """How many held-out images the suite takes, and how many views of each."""
    wanted = math.ceil(size * WANTED_IMAGES)
    num_images = min(num_heldout, wanted)
    return num_images, min(math.ceil(size * MAX_VIEWS), -(-wanted // num_images))  # rounded up


def plan_suite(num_heldout: int, again: Sequence[str] = ()) -> tuple[DomainPlan, ...]:
    """Tell what `surrogate_suite` makes of so many held-out images."""
    first, second = (math.prod(_suite_shape(num_heldout, size)) for size in (1, MORE))
    shown = {name: first + second * (name in again) for name in (VIEWS_DOMAIN, *GROUPS)}
    views = (DomainPlan(name, num, GROUPS.get(name, ())) for name, num in shown.items())
    return (DomainPlan(HELDOUT_DOMAIN, num_heldout), *views)


def surrogate_suite(
    surrogates: SurrogateSet, seed: int, round_number: int = MEASURED, size: float = 1
) -> EvaluationSet:
    """Held-out surrogates as they are, in views, and these under each group of corruptions.

    Whole and once, as `distill` shows them, they give its figure; that is stated and not gated, for
    among so few one flip is a point. In several views it is not, so the gate takes those.

    Args:
        surrogates: images and which of them were held out.
        seed: of views and corruptions.
        round_number: later rounds draw others of the same images, and show none whole.
        size: times as many images.

    Raises:
        ConfigError: no image was held out.
    """
    whole, rows = heldout_source(surrogates), np.flatnonzero(surrogates.is_heldout)
    if not len(rows):
        raise ConfigError(
            "no surrogate image was held out",
            where="synthesis.heldout_share",
            hint="distill with more images, or pass --data DIR",
        )
    drawn = derived_seed(seed, "suite", round_number)  # a repair is not chosen on the proof's views
    rng = np.random.default_rng(drawn)
    num_rows, num_views = _suite_shape(len(rows), size)
    rows = rng.permutation(rows)[:num_rows]
    image_NHWC = _views(surrogates.images.rows(rows), num_views, rng if round_number else None)
    labels, pictures = np.tile(surrogates.class_index[rows], num_views), np.tile(rows, num_views)
    shown = {VIEWS_DOMAIN: image_NHWC}
    shown |= {group: corrupted_group(image_NHWC, group, drawn) for group in GROUPS}
    sources: tuple[StoreSource, ...] = tuple(
        ArraySource(name, images, labels, pictures) for name, images in shown.items()
    )
    views = f"{counted(num_views, 'view')} each, mirrored and cropped, clean and under {CORRUPTED}"
    description = f"{counted(len(rows), 'held-out surrogate image')} in {views}"
    if round_number == MEASURED:
        sources = (whole, *sources)
        description = (
            f"{counted(len(whole), 'held-out surrogate image')}: whole, which gives the figure of "
            f"distill, and for mean and gate {views}"
        )
    more = functools.partial(surrogate_suite, surrogates, seed, MORE_ROUND, MORE)
    return EvaluationSet(sources, "agreement", description, more)


def refuse_leakage(image_NHWC: Images, calibrated: frozenset[str], where: str) -> None:
    """Stop when an image to be measured on has set activation ranges, as it is or mirrored.

    Raises:
        ConfigError: at least one has.
    """
    if not calibrated:
        return
    either_way = image_digests(image_NHWC) + image_digests(image_NHWC[:, :, ::-1])
    if not calibrated.isdisjoint(either_way):
        raise ConfigError(
            "calibration and evaluation share pictures, the measured accuracy would flatter",
            where=where,
            hint="calibrate on other pictures than those of --data",
        )
