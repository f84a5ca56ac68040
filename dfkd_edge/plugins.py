"""Loads exporters by name, and names the entry points of exporters and targets.

Both come through entry points, so the core names no backend and another package can add its own:
`dfkd_edge.exporters` maps a name to a class or function, `dfkd_edge.targets` to a package that
holds `modules/`, `jetpacks/`, `boards/` and `quantization/` with one TOML file each.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from dfkd_edge.errors import ConfigError, EnvironmentLackingError, did_you_mean

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
        raise ConfigError(f"unknown exporter '{name}'", hint=did_you_mean(name, found))
    try:
        loaded = found[name].load()
    except ImportError as error:
        raise EnvironmentLackingError(
            f"exporter '{name}' lacks {error.name or error}", hint="pip install it"
        ) from error
    return loaded() if isinstance(loaded, type) else loaded
