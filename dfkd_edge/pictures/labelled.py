"""Labelled pictures on disk, matched to the class list."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dfkd_edge.errors import (
    ConfigError,
    UsageError,
    faults_as_errors,
)
from dfkd_edge.interfaces import Reporter
from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.faults import Fault, LackingFault, UsageFault
from dfkd_edge.runtime.folder_layouts import EXPECTED, expected_layout, pictures_in, read_layout
from dfkd_edge.runtime.preprocess import read_picture


def require_folder(root: Path) -> None:
    """Check that the folder of labelled pictures is there, which needs no class list.

    Raises:
        UsageError: it is not.
    """
    if not root.is_dir():
        raise UsageError("no such folder", where=f"--data {root}", hint=EXPECTED)


def require_pictures(root: Path, class_names: tuple[str, ...]) -> None:
    """Check that a folder holds labelled pictures of the classes, before hours are spent.

    Raises:
        UsageError: it does not, or no picture of a domain can be read.
    """
    from dfkd_edge.runtime.labelled_folders import find_pictures

    with faults_as_errors():
        files: dict[str, list[Path]] = {}
        for picture in find_pictures(root, class_names).pictures:
            files.setdefault(picture.domain, []).append(picture.path)
        for domain, of_domain in files.items():
            if all(fault_of(file) for file in of_domain):
                raise UsageFault(
                    f"no picture of domain '{domain}' can be read",
                    f"--data {root}",
                    f"remove or mend them, such as {of_domain[0]}",
                )


def fault_of(picture: Path) -> Fault | None:
    """Read a picture; returns what is wrong with it, or None.

    Raises:
        LackingFault: Pillow is not installed, which is no fault of the picture.
    """
    try:
        read_picture(picture, side_px=8)
    except LackingFault:
        raise
    except Fault as fault:
        return fault
    return None


@dataclass(frozen=True, slots=True)
class Domain:
    """Pictures of one domain."""

    name: str
    files: tuple[Path, ...]
    labels: tuple[int, ...]
    """Index into the class list."""


def find_domains(root: Path, class_names: tuple[str, ...]) -> list[Domain]:
    """Find the labelled pictures; folders that name no class of the list are passed over.

    Raises:
        ConfigError: the folder is missing or holds no picture of any class.
    """
    if not root.is_dir():
        raise ConfigError("no such folder", where=f"--data {root}")
    found: dict[str, list[tuple[Path, int]]] = {}
    for folder in read_layout(root, class_names).folders:
        if folder.label is not None:
            pairs = found.setdefault(folder.domain, [])
            pairs += [(file, folder.label) for file in pictures_in(folder.path)]
    domains = [
        Domain(name, tuple(file for file, _ in pairs), tuple(label for _, label in pairs))
        for name, pairs in found.items()
        if pairs
    ]
    if not domains:
        raise ConfigError(
            "no picture of any class",
            where=f"--data {root}",
            hint=expected_layout(root, class_names),
        )
    return domains


def describe_folders(root: Path, class_names: tuple[str, ...]) -> str:
    """Say in one line how a folder of labelled pictures is read."""
    return read_layout(root, class_names).description


def note_strangers(root: Path, class_names: tuple[str, ...], reporter: Reporter) -> None:
    """Tell which folders are passed over since they name no class, where there are some."""
    strangers = folders_of_no_class(root, class_names)
    if strangers:
        shown = ", ".join(strangers[:5]) + (" ..." if len(strangers) > 5 else "")
        reporter.note(f"  passed over, no class of the list: {shown}")


def folders_of_no_class(root: Path, class_names: tuple[str, ...]) -> list[str]:
    """Name the folders that lie where classes are expected but name none, as `domain/folder`.

    A near name of the list is asked for behind it.
    """
    return [
        folder.path.relative_to(root).as_posix()
        + (f" (did you mean {folder.near}?)" if folder.near else "")
        for folder in read_layout(root, class_names).folders
        if folder.label is None
    ]


Images = NDArray[np.uint8]


def no_readable_picture(domain: str, unreadable: list[Path]) -> ConfigError:
    """Say that a domain has no picture left."""
    return ConfigError(
        f"no picture of domain '{domain}' can be read",
        where=str(unreadable[-1]),
        hint="remove or mend the pictures",
    )


def note_unreadable(unreadable: Sequence[Path], reporter: Reporter) -> None:
    """Tell how many pictures were passed over, where there are some."""
    if unreadable:
        reporter.note(
            f"  passed over {counted(len(unreadable), 'unreadable picture')}, such as "
            f"{unreadable[0]}"
        )


def image_digests(image_NHWC: Images) -> list[str]:
    """Short hash of each image, to tell calibration images from evaluation images."""
    return [hashlib.sha256(np.ascontiguousarray(i).data).hexdigest()[:16] for i in image_NHWC]
