"""Our caches on this machine: what they hold, and how to empty them."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dfkd_edge.errors import ConfigError, EnvironmentLackingError, did_you_mean
from dfkd_edge.runtime.engine_build import MAX_CACHE_BYTES, default_cache
from dfkd_edge.runtime.safe_files import bound_cache

NAMES = ("engines", "drawings")  # The latter were kept by earlier versions
MAX_BYTES = {"engines": MAX_CACHE_BYTES, "drawings": 256 << 20}
"""What each may grow to: whoever writes deletes what was used longest ago."""


@dataclass(frozen=True, slots=True)
class Cache:
    """One folder of files that can be made again."""

    name: str
    path: Path
    num_files: int
    size_bytes: int
    max_bytes: int


def own_cache(name: str) -> Path:
    """Folder of a cache."""
    return default_cache().with_name(name)


def find_caches(names: Sequence[str] = NAMES) -> list[Cache]:
    """Measure caches by name; one that is not there has no files.

    Raises:
        ConfigError: there is no such cache; the nearest name is suggested.
    """
    found = []
    for name in dict.fromkeys(names):
        if name not in NAMES:
            hint = did_you_mean(name, NAMES)
            raise ConfigError(f"unknown cache '{name}'", where="cache clean", hint=hint)
        sizes = [path.stat().st_size for path in own_cache(name).rglob("*") if path.is_file()]
        found.append(Cache(name, own_cache(name), len(sizes), sum(sizes), MAX_BYTES[name]))
    return found


def empty_cache(cache: Cache, keep_bytes: int = 0) -> int:
    """Delete a cache with everything in it, or but for what was used last; returns what is freed.

    Raises:
        EnvironmentLackingError: a file cannot be deleted.
    """
    try:
        if keep_bytes:
            return bound_cache(cache.path, keep_bytes)
        shutil.rmtree(cache.path)
        return cache.size_bytes
    except OSError as error:
        where = str(error.filename or cache.path)
        raise EnvironmentLackingError(f"cannot delete: {error.strerror}", where=where) from error
