"""Finds runtimes by name, through entry points: a package adds its own as one file and its data."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from typing import TYPE_CHECKING

from dfkd_edge.errors import ConfigError, EnvironmentLackingError, did_you_mean
from dfkd_edge.handover.parsers import Agreement, Parser
from dfkd_edge.handover.profile import RENAME, RuntimeProfile, read_runtime
from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.target_profiles.lookup import load_target
from dfkd_edge.target_profiles.profile import TargetProfile

if TYPE_CHECKING:
    from dfkd_edge.handover.request import Handover

RUNTIMES = "dfkd_edge.runtimes"
"""Entry-point group: a name -> a function that writes a runtime's own files. Its data lie beside
its module: `triton.toml` beside `triton.py`, which may name parsers of its texts as `PARSERS`, and
as `agree` what compares the texts that these read."""
Writer = Callable[["Handover"], Mapping[str, str]]
"""Makes the texts of a runtime's folder, by path: configuration, labels, README.md."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What is known of a runtime, and what writes its files."""

    profile: RuntimeProfile
    write: Writer
    parsers: Mapping[str, Parser] = field(default_factory=dict)
    """What reads some of its texts as the runtime does, by their place in the folder."""
    agree: Agreement | None = None


def list_runtimes() -> list[str]:
    """Every runtime that is installed, by name."""
    return sorted(_points())


def load_runtime(name: str) -> Runtime:
    """Load one runtime by name.

    Raises:
        ConfigError: there is none of this name; the nearest is suggested.
        EnvironmentLackingError: its package cannot be loaded.
    """
    points = _points()
    if name not in points:
        raise ConfigError(f"unknown runtime '{name}'", hint=did_you_mean(name, points))
    package, _, module = points[name].module.rpartition(".")
    try:
        write, folder = points[name].load(), files(package)
    except ImportError as error:
        raise EnvironmentLackingError(
            f"runtime '{name}' lacks {error.name or error}", hint="pip install it"
        ) from error
    profile = read_runtime(folder.joinpath(f"{module}.toml"))
    loaded = sys.modules[points[name].module]
    return Runtime(profile, write, getattr(loaded, "PARSERS", {}), getattr(loaded, "agree", None))


def require_runtimes(
    names: Sequence[str],
    target: TargetProfile,
    *,
    batch: Sequence[int],
    classes: Sequence[str] = (),
    way_out: str = RENAME,
) -> list[Runtime]:
    """Load the runtimes that a bundle is to be made for, each once.

    Args:
        names: of the runtimes.
        target: that the bundle is for.
        batch: of its graphs.
        classes: by name; empty where they are not known yet.
        way_out: what the user can do where a runtime would misread one.

    Raises:
        ConfigError: one is unknown, never was on the target, cannot fill the batch, or would
            misread a class name.
    """
    found = [load_runtime(name) for name in dict.fromkeys(names)]
    for runtime in found:
        runtime.profile.require(target)
        runtime.profile.require_batch(batch)
        runtime.profile.require_names(classes, way_out)
    return found


def target_of(bundle: Bundle) -> TargetProfile:
    """Load the target that a bundle was exported for.

    Raises:
        ConfigError: it is not here any more, such as a TOML file of the user's own.
    """
    made_with = bundle.manifest.provenance.get("config")
    named = made_with.get("target") if isinstance(made_with, dict) else None
    target = load_target(named if isinstance(named, str) else bundle.manifest.target)
    if target.name != bundle.manifest.target:
        raise ConfigError(
            f"bundle is for {bundle.manifest.target}, and '{named}' is {target.name} here",
            where=str(bundle.folder),
            hint="run it where the target's file is",
        )
    return target


@functools.cache  # what is installed does not change while we run
def _points() -> Mapping[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=RUNTIMES)}
