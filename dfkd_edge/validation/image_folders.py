"""Labelled pictures on disk, matched to the class list."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape

from dfkd_edge.errors import ConfigError
from dfkd_edge.interfaces import Reporter
from dfkd_edge.runtime.folder_layouts import expected_layout, pictures_in, read_layout


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
        reporter.note(f"  passed over, no class of the list: {escape(shown)}")


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
