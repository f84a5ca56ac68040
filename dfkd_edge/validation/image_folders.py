"""Labelled pictures on disk: DIR/<domain>/<class>/ or DIR/<class>/, matched to the class list."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from dfkd_edge.class_names import folded
from dfkd_edge.errors import ConfigError

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


@dataclass(frozen=True, slots=True)
class Domain:
    """Pictures of one domain."""

    name: str
    files: tuple[Path, ...]
    labels: tuple[int, ...]
    """Index into the class list."""


def _class_key(name: str) -> str:
    return folded(name.replace("_", " ").replace("-", " "))


def _pictures(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.suffix.lower() in PICTURE_SUFFIXES)


def _domain(name: str, folder: Path, index: dict[str, int]) -> Domain | None:
    pairs = [
        (file, index[_class_key(child.name)])
        for child in sorted(folder.iterdir())
        if child.is_dir() and _class_key(child.name) in index
        for file in _pictures(child)
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
    index = {_class_key(name): number for number, name in enumerate(class_names)}
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
    known = {_class_key(name) for name in class_names}
    children = sorted(child for child in root.iterdir() if child.is_dir())
    if any(_class_key(child.name) in known for child in children):
        return [child.name for child in children if _class_key(child.name) not in known]
    return [
        f"{domain.name}/{child.name}"
        for domain in children
        for child in sorted(domain.iterdir())
        if child.is_dir() and _class_key(child.name) not in known
    ]


def read_picture(path: Path, side_px: int) -> NDArray[np.uint8]:
    """Read one picture as RGB uint8 [side, side, 3], squeezed to a square; alpha lies on white.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        with Image.open(path) as picture:
            if "A" in picture.getbands() or "transparency" in picture.info:
                rgba = picture.convert("RGBA")
                white = Image.new("RGBA", rgba.size, "white")
                picture_rgb = Image.alpha_composite(white, rgba).convert("RGB")
            else:
                picture_rgb = picture.convert("RGB")
            resized = picture_rgb.resize((side_px, side_px), Image.Resampling.BILINEAR)
            return np.asarray(resized)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ConfigError(
            "picture cannot be read", where=str(path), hint="remove or mend it"
        ) from error
