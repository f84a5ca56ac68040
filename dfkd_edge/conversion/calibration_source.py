"""Where calibration images come from: the run's own surrogates, or a folder of real pictures.

Shape suffixes: N images, S side, C = 3 channels (RGB).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dfkd_edge.artifacts import Bytes, SurrogateSet
from dfkd_edge.config.settings import ExportConfig
from dfkd_edge.conversion.calibration_need import VIEWS, find_shortage
from dfkd_edge.errors import ConfigError
from dfkd_edge.pictures.labelled import image_digests, note_unreadable
from dfkd_edge.pictures.real import pictures_below
from dfkd_edge.runs.context import StageContext
from dfkd_edge.runs.finished import FinishedRun
from dfkd_edge.runtime.faults import Fault
from dfkd_edge.runtime.preprocess import read_picture, resized_images
from dfkd_edge.target_profiles.profile import TargetProfile


@dataclass(frozen=True, slots=True)
class CalibrationSet:
    """Images that set activation ranges."""

    images: Bytes  # [N, S, S, C], as the model takes them
    description: str  # Where they come from and how they were chosen

    @property
    def digests(self) -> frozenset[str]:
        """Short hash of each image, by which evaluation images are refused."""
        return frozenset(image_digests(self.images))


def calibration_set(
    run: FinishedRun, target: TargetProfile, config: ExportConfig, context: StageContext
) -> CalibrationSet:
    """Choose the calibration images.

    Raises:
        ConfigError: there are fewer than the target needs; never silently fewer.
    """
    side_px = run.student.settings.image_size_px
    if config.calibration_data:
        return _from_folder(target, config, side_px, context)
    shortage = find_shortage(run.surrogates.summary, config, target)
    if shortage:
        raise shortage.error()
    return select_surrogates(run.surrogates, config.calibration_size, side_px, context.seed)


def select_surrogates(
    surrogates: SurrogateSet, num: int, side_px: int, seed: int
) -> CalibrationSet:
    """Draw images, balanced by class, and by style within each class; there must be enough.

    Where they are fewer than `num`, the first ones come mirrored too. They come interleaved, so
    that each half is balanced too. Held-out images are never drawn: the ladder measures on them.
    Images of another side than the student's are resized as pictures are.
    """
    labels, styles = surrogates.class_index, surrogates.style_index
    pool = np.flatnonzero(~surrogates.is_heldout)
    generator = np.random.default_rng(seed)
    hands = []
    for label in np.unique(labels[pool]):
        rows = generator.permutation(pool[labels[pool] == label])
        turn = np.empty(len(rows), np.int64)
        for style in np.unique(styles[rows]):
            of_style = np.flatnonzero(styles[rows] == style)
            turn[of_style] = np.arange(len(of_style))
        hands.append(rows[np.argsort(turn, kind="stable")])  # styles in turn, random within
    dealt = [hand[i] for i in range(max(map(len, hands))) for hand in hands if i < len(hand)]
    assert num <= VIEWS * len(dealt)
    chosen = np.array(dealt[:num])
    num_classes, num_styles = (len(np.unique(index[chosen])) for index in (labels, styles))
    images = resized_images(surrogates.images.rows(chosen), side_px)
    num_mirrored = num - len(images)
    mirrored = f" ({num_mirrored} of them mirrored too)" if num_mirrored else ""
    return CalibrationSet(
        np.concatenate([images, images[:num_mirrored, :, ::-1]]),
        f"{len(images)} surrogate images of {num_classes} classes in {num_styles} styles{mirrored}"
        f", seed {seed}",
    )


def _from_folder(
    target: TargetProfile, config: ExportConfig, side_px: int, context: StageContext
) -> CalibrationSet:
    """Draw pictures evenly from the whole folder and read them as prediction does."""
    root = Path(config.calibration_data)
    files = pictures_below(root)
    order = np.random.default_rng(context.seed).permutation(len(files))
    images: list[Bytes] = []
    unreadable: list[Path] = []
    wanted = min(config.calibration_size, len(files))
    with context.reporter.stage("reading calibration pictures", wanted) as progress:
        for index in order:
            if len(images) == wanted:
                break
            try:
                images.append(read_picture(files[index], side_px))
                progress.advance()
            except Fault:
                unreadable.append(files[index])  # the next one of the permutation takes its place
    note_unreadable(unreadable, context.reporter)
    if len(images) < max(target.min_calibration_images, 1):
        raise ConfigError(
            f"{len(images)} readable pictures to calibrate with, {target.name} needs "
            f"{target.min_calibration_images}",
            where=f"--calib-data {root}",
            hint="give more pictures, or leave it out: the surrogate images are used then",
        )
    return CalibrationSet(
        np.stack(images), f"{len(images)} pictures drawn from {root}, seed {context.seed}"
    )
