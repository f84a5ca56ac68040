"""Labelled pictures on disk, matched to the class list."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dfkd_edge.errors import ConfigError, UsageError, faults_as_errors
from dfkd_edge.runtime.counting import counted, first_few
from dfkd_edge.runtime.faults import PictureFault
from dfkd_edge.runtime.folder_layouts import EXPECTED, LabelledFolder, find_pictures
from dfkd_edge.runtime.plain_text import one_line

if TYPE_CHECKING:  # a wrong path is told of before numpy is loaded
    import numpy as np
    from numpy.typing import NDArray

    from dfkd_edge.interfaces import Reporter

SAVED_IMAGES = "dfkd-edge-images.json"
"""Marks a folder of surrogate images that were saved for other programs."""


def require_folder(root: Path) -> None:
    """Check that the folder of labelled pictures is there, which needs no class list.

    Raises:
        UsageError: it is not.
    """
    if not root.is_dir():
        raise UsageError("no such folder", where=f"--data {root}", hint=EXPECTED)


def find_labelled(root: Path, class_names: tuple[str, ...]) -> LabelledFolder:
    """Find the labelled pictures of `--data`; none of them is opened.

    Raises:
        UsageError: the folder is missing, holds no picture of any class, or those that students
            learn from.
    """
    if any((place / SAVED_IMAGES).is_file() for place in (root, *root.absolute().parents)):
        raise UsageError(
            "these are surrogate images, which students learn from: they prove nothing",
            where=f"--data {root}",
            hint="give pictures that no run has made",
        )
    with faults_as_errors():
        return find_pictures(root, class_names)


def require_pictures(root: Path, class_names: tuple[str, ...]) -> None:
    """Check that a folder holds labelled pictures of the classes, before hours are spent.

    Raises:
        UsageError: it does not, or no picture of a domain can be read.
    """
    for domain in find_labelled(root, class_names).domains:
        with faults_as_errors():
            is_readable = any(fault_of(file) is None for file in domain.files)
        if not is_readable:
            raise UsageError(
                f"no picture of domain '{domain.name}' can be read",
                where=f"--data {root}",
                hint=f"remove or repair them, such as {domain.files[0]}",
            )


def fault_of(picture: Path) -> PictureFault | None:
    """Read a picture; returns what is wrong with it, or None.

    Raises:
        LackingFault: Pillow is not installed, which is no fault of the picture.
    """
    from dfkd_edge.runtime.preprocess import read_picture

    try:
        read_picture(picture, side_px=8)  # decodes the whole file, keeps next to nothing
    except PictureFault as fault:
        return fault
    return None


def note_strangers(root: Path, class_names: tuple[str, ...], reporter: Reporter) -> None:
    """Tell which folders are passed over since they name no class, and what else is left out."""
    found = find_labelled(root, class_names)
    strangers = [
        folder.path.relative_to(root).as_posix()
        + (f" (did you mean {folder.near}?)" if folder.near else "")
        for folder in found.folders
        if folder.label is None
    ]
    if strangers:
        shown = one_line(first_few(strangers, 5))
        reporter.note(f"  passed over, no class of the list: {shown}")
    if found.left_out:
        reporter.note(f"  left out: {one_line(first_few(found.left_out, 5))}")


def no_readable_picture(domain: str, unreadable: list[Path]) -> ConfigError:
    """Say that a domain has no picture left."""
    return ConfigError(
        f"no picture of domain '{domain}' can be read",
        where=str(unreadable[-1]),
        hint="remove or repair the pictures",
    )


def note_unreadable(unreadable: Sequence[Path], reporter: Reporter) -> None:
    """Tell how many pictures were passed over, where there are some."""
    if unreadable:
        reporter.note(
            f"  passed over {counted(len(unreadable), 'unreadable picture')}, such as "
            + one_line(str(unreadable[0]))
        )


def image_digests(image_NHWC: NDArray[np.uint8]) -> list[str]:
    """Short hash of each image, to tell calibration images from evaluation images."""
    return [hashlib.sha256(image.tobytes()).hexdigest()[:16] for image in image_NHWC]
