"""Faults of the device runtime become errors of the core: one tree for the command line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from dfkd_edge.errors import (
    ArtifactError,
    DfkdEdgeError,
    EnvironmentLackingError,
    GateFailedError,
    UsageError,
)
from dfkd_edge.runtime.faults import Fault, LackingFault, UsageFault
from dfkd_edge.runtime.folder_layouts import EXPECTED

BY_EXIT_CODE: dict[int, type[DfkdEdgeError]] = {
    1: ArtifactError,
    2: UsageError,
    3: GateFailedError,
    4: EnvironmentLackingError,
}


@contextlib.contextmanager
def faults_as_errors() -> Iterator[None]:
    """Raise a runtime fault as the error with its exit code.

    Raises:
        DfkdEdgeError: in place of any Fault.
    """
    try:
        yield
    except Fault as fault:
        raise BY_EXIT_CODE[fault.exit_code](
            fault.what, where=fault.where, hint=fault.hint
        ) from fault


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
    from dfkd_edge.runtime.preprocess import read_picture

    try:
        read_picture(picture, side_px=8)
    except LackingFault:
        raise
    except Fault as fault:
        return fault
    return None
