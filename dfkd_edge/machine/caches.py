"""Our caches on this machine: what they hold, and how to empty them."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dfkd_edge.errors import ConfigError, EnvironmentLackingError, did_you_mean
from dfkd_edge.runtime.engine_build import MAX_CACHE_BYTES, default_cache
from dfkd_edge.runtime.safe_files import bound_cache

MAX_BYTES = {"engines": MAX_CACHE_BYTES}
"""What each may grow to: whoever writes deletes what was used longest ago."""


@dataclass(frozen=True, slots=True)
class Cache:
    """One folder of files that can be made again."""

    name: str
    path: Path
    num_files: int
    size_bytes: int
    max_bytes: int | None  # None: this version knows no such cache, nothing adds to it


def own_cache(name: str) -> Path:
    """Folder of a cache."""
    return default_cache().with_name(name)


def all_names() -> list[str]:
    """Our caches, and folders that lie beside them, as of another version."""
    place = default_cache().parent
    there = sorted(place.iterdir()) if place.is_dir() else []
    others = [path.name for path in there if path.is_dir() and not path.is_symlink()]
    return list(dict.fromkeys([*MAX_BYTES, *others]))


def find_caches(names: Sequence[str] = ()) -> list[Cache]:
    """Measure caches by name, all where none is given; one that is not there has no files.

    Raises:
        ConfigError: there is no such cache; the nearest name is suggested.
    """
    found, known = [], all_names()
    for name in dict.fromkeys(names or known):
        if name not in known:
            hint = did_you_mean(name, known)
            raise ConfigError(f"unknown cache '{name}'", where="cache clean", hint=hint)
        sizes = [path.stat().st_size for path in own_cache(name).rglob("*") if path.is_file()]
        found.append(Cache(name, own_cache(name), len(sizes), sum(sizes), MAX_BYTES.get(name)))
    return found


def empty_cache(cache: Cache, keep_bytes: int = 0) -> int:
    """Delete a cache with everything in it, or but for what was used last; returns what is freed.

    Raises:
        EnvironmentLackingError: a file cannot be deleted.
    """
    try:
        if keep_bytes or cache.path.is_symlink():  # to a disk that may hold files of others
            return bound_cache(cache.path, keep_bytes)
        shutil.rmtree(cache.path)
        return cache.size_bytes
    except OSError as error:
        where = str(error.filename or cache.path)
        raise EnvironmentLackingError(f"cannot delete: {error.strerror}", where=where) from error
