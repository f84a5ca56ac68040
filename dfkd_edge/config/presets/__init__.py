"""Named settings of whole runs, as TOML files: the base that a user's own settings lie on."""

from importlib.resources import files
from typing import Any

from dfkd_edge.errors import ConfigError, did_you_mean
from dfkd_edge.files import read_toml


def preset_names() -> list[str]:
    """List the presets."""
    names = [entry.name for entry in files(__name__).iterdir()]
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def read_preset(name: str) -> dict[str, Any]:
    """Read a preset as a tree of settings.

    Raises:
        ConfigError: there is none of that name.
    """
    names = preset_names()
    if name not in names:
        hint = did_you_mean(name, names)
        raise ConfigError(f"unknown preset '{name}'", where="--preset", hint=hint)
    return read_toml(files(__name__) / f"{name}.toml")
