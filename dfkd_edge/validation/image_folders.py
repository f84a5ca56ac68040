"""Labelled pictures on disk: DIR/<domain>/<class>/ or DIR/<class>/, matched to the class list."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dfkd_edge.errors import ConfigError
from dfkd_edge.runtime.labelled_folders import class_key, pictures_in


@dataclass(frozen=True, slots=True)
class Domain:
    """Pictures of one domain."""

    name: str
    files: tuple[Path, ...]
    labels: tuple[int, ...]
    """Index into the class list."""


def _domain(name: str, folder: Path, index: dict[str, int]) -> Domain | None:
    pairs = [
        (file, index[class_key(child.name)])
        for child in sorted(folder.iterdir())
        if child.is_dir() and class_key(child.name) in index
        for file in pictures_in(child)
    ]
    if not pairs:
        return None
    return Domain(name, tuple(f for f, _ in pairs), tuple(k for _, k in pairs))


def find_domains(root: Path, class_names: tuple[str, ...]) -> list[Domain]:
    """Find the labelled pictures; folders that name no class of the list are passed over.

    Raises:
        ConfigError: the folder is missing or holds no picture of any class.
    """
    if not root.is_dir():
        raise ConfigError("no such folder", where=f"--data {root}")
    index = {class_key(name): number for number, name in enumerate(class_names)}
    single = _domain(root.name, root, index)
    if single:
        return [single]
    found = [
        _domain(child.name, child, index) for child in sorted(root.iterdir()) if child.is_dir()
    ]
    domains = [domain for domain in found if domain]
    if not domains:
        raise ConfigError(
            "no picture of any class",
            where=f"--data {root}",
            hint="expected DIR/<domain>/<class>/*.jpg or DIR/<class>/*.jpg with your class names",
        )
    return domains


def folders_of_no_class(root: Path, class_names: tuple[str, ...]) -> list[str]:
    """Name the folders that lie where classes are expected but name none, as `domain/folder`."""
    known = {class_key(name) for name in class_names}
    children = sorted(child for child in root.iterdir() if child.is_dir())
    if any(class_key(child.name) in known for child in children):
        return [child.name for child in children if class_key(child.name) not in known]
    return [
        f"{domain.name}/{child.name}"
        for domain in children
        for child in sorted(domain.iterdir())
        if child.is_dir() and class_key(child.name) not in known
    ]
