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
from dfkd_edge.runtime.faults import Fault

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


def require_pictures(root: Path, class_names: tuple[str, ...]) -> None:
    """Check that a folder holds labelled pictures of the classes, before hours are spent.

    Raises:
        UsageError: it does not.
    """
    from dfkd_edge.runtime.labelled_folders import find_pictures

    with faults_as_errors():
        find_pictures(root, class_names)
