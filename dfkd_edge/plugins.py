"""Finds exporters and targets by name.

Both come through entry points, so the core names no backend and another package can add its own:
`dfkd_edge.exporters` maps a name to a class or function, `dfkd_edge.targets` to a package that
holds `modules/`, `jetpacks/`, `boards/` and `quantization/` with one TOML file each.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from dfkd_edge.errors import ConfigError, EnvironmentLackingError

EXPORTERS = "dfkd_edge.exporters"
TARGETS = "dfkd_edge.targets"


def load_exporter(name: str) -> Any:
    """Load one backend by name.

    Returns:
        What the entry point names; a class is made first, without arguments.

    Raises:
        ConfigError: there is no such exporter; the nearest name is suggested.
        EnvironmentLackingError: a library that it needs is not installed.
    """
    found = {point.name: point for point in entry_points(group=EXPORTERS)}
    if name not in found:
        raise _unknown("exporter", name, found)
    loaded = _load(found[name])
    return loaded() if isinstance(loaded, type) else loaded


def _load(point: EntryPoint) -> Any:
    try:
        return point.load()
    except ImportError as error:
        raise EnvironmentLackingError(
            f"exporter '{point.name}' lacks {error.name or error}", hint="pip install it"
        ) from error


def _unknown(
    what: str, name: str, known: Iterable[str], where: str = "", family: Sequence[str] = ()
) -> ConfigError:
    names = list(known)
    near = family[:1] or difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}"
    if not near and what == "target":  # more than two hundred names help nobody
        hint = "dfkd-edge targets list shows all, --target takes a TOML file too"
    if len(family) > 1:
        hint = f"name one of {', '.join(family)}"
    return ConfigError(f"unknown {what} '{name}'", where=where, hint=hint)
