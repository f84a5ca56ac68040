"""Finds targets by name and joins what their files say."""

import functools
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from dfkd_edge.errors import ConfigError, EnvironmentLackingError, did_you_mean
from dfkd_edge.target_profiles.files import (
    TargetFields,
    build_profile,
    read_quantization_spec,
    read_target_file,
)
from dfkd_edge.target_profiles.profile import TargetProfile

TARGETS = "dfkd_edge.targets"
"""Entry-point group: packages with folders `modules/`, `jetpacks/`, `boards/`, `quantization/` of
TOML files."""
ALIASES = {"jetson": "orin-nano-8gb-super@jp6.2"}
JOIN = "@jp"
MAX_BASES = 8  # Deeper than any file needs: a circle


def load_target(name: str, extra_dirs: Sequence[Path] = ()) -> TargetProfile:
    """Find a target and join what its files say.

    Args:
        name: `orin-nano-8gb@jp6.2`, a module alone (its default JetPack), a board, the alias
            `jetson`, or the path of a TOML file of the user's own.
        extra_dirs: folders with the user's own boards, one TOML file each.

    Raises:
        ConfigError: no such target, a JetPack that never shipped for the module, or a wrong file.
    """
    name = ALIASES.get(name, name)
    if name.endswith(".toml"):
        return _profile_of_file(Path(name), Path(name).stem)
    for folder in extra_dirs:
        if (path := folder / f"{name}.toml").is_file():
            return _profile_of_file(path, name)
    module, jetpack, fields = _find(name, extra_dirs)
    full_name = f"{module}{JOIN}{jetpack}" if jetpack else module
    return _profile(full_name, module, jetpack, fields)


def list_modules() -> dict[str, list[str]]:
    """JetPacks of every module, oldest first; none for a CPU board."""
    shipped = {
        module: list(read_target_file(path).values["jetpacks"])
        for module, path in _stored("modules").items()
    }
    return shipped | {board: [] for board in _stored("boards")}


def list_targets(extra_dirs: Sequence[Path] = ()) -> list[str]:
    """Every full name: modules with each of their JetPacks, then boards, then the user's own."""
    names = [
        f"{module}{JOIN}{jetpack}" if jetpack else module
        for module, jetpacks in list_modules().items()
        for jetpack in jetpacks or [""]
    ]
    return names + [path.stem for folder in extra_dirs for path in sorted(folder.glob("*.toml"))]


def _profile_of_file(path: Path, name: str) -> TargetProfile:
    fields = read_target_file(path)
    jetpack = None
    if (version := fields.base.removeprefix("jp")) in _stored("jetpacks"):
        jetpack, fields = version, fields.over(_jetpack_fields(version))
    elif fields.base:
        _, jetpack, base = _find(fields.base)
        fields = fields.over(base)
    return _profile(name, name, jetpack, fields)


def _profile(name: str, module: str, jetpack: str | None, fields: TargetFields) -> TargetProfile:
    release = jetpack.split("-")[0] if jetpack else None  # as in `7.2.2-trt11`
    spec_name, specs = fields.values.get("quantization"), _stored("quantization")
    if spec_name is None:
        return build_profile(name, module, release, fields, None)
    if spec_name not in specs:
        raise ConfigError(
            f"unknown quantization spec '{spec_name}'",
            where=f"{fields.where}: quantization",
            hint=did_you_mean(spec_name, specs),
        )
    spec = read_quantization_spec(specs[spec_name], spec_name)
    return build_profile(name, module, release, fields, spec)


def _find(name: str, extra_dirs: Sequence[Path] = ()) -> tuple[str, str | None, TargetFields]:
    """Module, JetPack and joined fields of a stored target."""
    name = ALIASES.get(name, name)
    boards, modules = _stored("boards"), _stored("modules")
    if name in boards:
        return name, None, _with_bases(read_target_file(boards[name]))
    module, at, jetpack = name.partition(JOIN)
    if module not in modules:
        raise _unknown_target(name, [*ALIASES, *modules, *list_targets(extra_dirs)])
    fields = read_target_file(modules[module])
    shipped: list[str] = fields.values["jetpacks"]
    jetpack = jetpack if at else fields.values["default_jetpack"]
    if jetpack not in shipped:
        raise ConfigError(
            f"JetPack {jetpack or '(none)'} never shipped for {module}",
            where=name,
            hint="those that did: " + ", ".join(f"{module}{JOIN}{j}" for j in shipped),
        )
    return module, jetpack, fields.on(_jetpack_fields(jetpack))


def _unknown_target(name: str, known: list[str]) -> ConfigError:
    module = name.partition("@")[0]
    family = [] if module in _stored("modules") else _family(module)
    if family:
        one = f"did you mean {family[0]}?"
        hint = one if len(family) == 1 else f"name one of {', '.join(family)}"
    else:  # where none is near, a list of more than two hundred names helps nobody
        others = "dfkd-edge targets list shows all, --target takes a TOML file too"
        hint = did_you_mean(name, known, others, num_names=3)
    return ConfigError(f"unknown target '{name}'", hint=hint)


def _family(words: str) -> list[str]:
    """Modules and boards that a part of their name or title stands for, shortest name first."""
    asked = set(re.findall(r"[a-z0-9]+", words.casefold()))
    found = []
    for name, path in {**_stored("modules"), **_stored("boards")}.items():
        text = f"{name} {read_target_file(path).values.get('title', '')}"
        if asked and asked <= set(re.findall(r"[a-z0-9]+", text.casefold())):
            found.append(name)
    return sorted(found, key=lambda name: (len(name), name))


def _jetpack_fields(version: str) -> TargetFields:
    return _with_bases(read_target_file(_stored("jetpacks")[version]))


def _with_bases(fields: TargetFields) -> TargetFields:
    """Lay a stored file over those it builds on."""
    for _ in range(MAX_BASES):
        if not fields.base:
            return fields
        kind = "jetpacks" if fields.base.startswith("jp") else "boards"
        base = read_target_file(_stored(kind)[fields.base.removeprefix("jp")])
        fields = fields.over(base)
    raise ConfigError("bases form a circle", where=fields.where)


@functools.cache  # what is installed does not change while we run
def _stored(kind: str) -> Mapping[str, Traversable]:
    """Files of one kind in every installed package of targets, by name."""
    found: dict[str, Traversable] = {}
    for point in entry_points(group=TARGETS):
        folder = files(point.module).joinpath(kind)
        if folder.is_dir():
            paths = (path for path in folder.iterdir() if path.name.endswith(".toml"))
            found |= {path.name.removesuffix(".toml"): path for path in paths}
    if not found:
        raise EnvironmentLackingError(
            "no target data is installed", hint="install the package anew (pip install .)"
        )
    return dict(sorted(found.items()))  # iterdir lists in any order
