"""Caches on this machine that our commands fill: our own, and the hubs of the libraries."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dfkd_edge.errors import ConfigError, EnvironmentLackingError, did_you_mean
from dfkd_edge.runtime.engine_build import default_cache

OURS = ("engines", "drawings")
"""Built engines, and what teachers have seen in the decoder's memory."""


@dataclass(frozen=True, slots=True)
class Cache:
    """One folder of files that can be made or fetched again."""

    name: str
    path: Path
    num_files: int
    size_bytes: int
    """On disk; a file with several links counts once."""


def own_cache(name: str) -> Path:
    """Folder of a cache of ours."""
    return default_cache().with_name(name)


def known_caches() -> list[Cache]:
    """Measure every cache, ours first; one that is not there has no files."""
    return [_measure(name, path) for name, path in _folders().items()]


def find_caches(names: Sequence[str]) -> list[Cache]:
    """Measure caches by name.

    Raises:
        ConfigError: there is no such cache; the nearest name is suggested.
    """
    folders = _folders()
    for name in names:
        if name not in folders:
            hint = did_you_mean(name, folders)
            raise ConfigError(f"unknown cache '{name}'", where="cache clean", hint=hint)
    return [_measure(name, folders[name]) for name in dict.fromkeys(names)]


def empty_cache(cache: Cache) -> None:
    """Delete a cache with everything in it.

    Raises:
        EnvironmentLackingError: a file cannot be deleted.
    """
    try:
        shutil.rmtree(cache.path)
    except OSError as error:
        raise EnvironmentLackingError(
            f"cannot delete: {error.strerror}", where=str(error.filename or cache.path)
        ) from error


def _folders() -> dict[str, Path]:
    """Where each library keeps its files, by its own environment variables."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    hugging_face = Path(os.environ.get("HF_HOME") or home / "huggingface")
    torch_home = Path(os.environ.get("TORCH_HOME") or home / "torch")
    return {
        **{name: own_cache(name) for name in OURS},
        "huggingface": Path(os.environ.get("HF_HUB_CACHE") or hugging_face / "hub"),
        "torch": torch_home / "hub",
        "open_clip": Path.home() / ".cache" / "clip",
    }


def _measure(name: str, path: Path) -> Cache:
    sizes: dict[tuple[int, int], int] = {}
    for folder, _, files in os.walk(path):
        for file in files:
            status = Path(folder, file).lstat()
            sizes[status.st_dev, status.st_ino] = status.st_size
    return Cache(name, path, len(sizes), sum(sizes.values()))
