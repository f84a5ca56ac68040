"""The one way from TOML and `a.b=c` overrides to the settings of a run, and back.

Unknown keys get the nearest known one.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any, get_args, get_type_hints

from dfkd_edge.config.presets import read_preset
from dfkd_edge.config.settings import PipelineConfig
from dfkd_edge.errors import ConfigError


def load_config(path: Path | None, overrides: Iterable[str] = ()) -> PipelineConfig:
    """Build the configuration of a run.

    Args:
        path: TOML file, or None for the defaults; a key `preset` names what it lies on.
        overrides: `a.b=c` texts; values are TOML, bare words count as strings. Later ones win.

    Raises:
        ConfigError: a file, key or value is wrong.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        try:
            tree = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ConfigError("no such config file", where=str(path)) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise ConfigError(f"not a TOML file: {error}", where=str(path)) from error
    for text in overrides:
        _override(tree, text)
    preset = tree.pop("preset", "")
    if preset:
        tree = _merged(read_preset(str(preset)), tree)
    config: PipelineConfig = _build(PipelineConfig, tree, "")
    return config


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Lay one tree of settings over another; sections merge, values replace."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        both = isinstance(below, dict) and isinstance(value, dict)
        result[key] = _merged(below, value) if both else value  # type: ignore[arg-type]
    return result


def _override(tree: dict[str, Any], text: str) -> None:
    key, equals, value_text = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ConfigError(
            f"'{text}' is not KEY=VALUE", where="--set", hint="such as prompts.num_styles=8"
        )
    try:
        value = tomllib.loads(f"value = {value_text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = value_text.strip()
    *parents, last = key.split(".")
    for part in parents:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"'{part}' is a value, not a section", where=f"--set {text}")
    tree[last] = value


def _build(cls: type[Any], tree: Mapping[str, Any], prefix: str) -> Any:
    known = [f.name for f in dataclasses.fields(cls)]
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in tree.items():
        if key not in known:
            near = _homes(PipelineConfig, key) or [
                f"{prefix}{name}" for name in difflib.get_close_matches(key, known, n=1)
            ]
            hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"unknown setting '{prefix}{key}'", where="config", hint=hint)
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, Mapping):
                raise ConfigError("is a section, not a value", where=f"{prefix}{key}")
            values[key] = _build(hints[key], value, f"{prefix}{key}.")
        else:
            values[key] = _checked(hints[key], value, f"{prefix}{key}")
    return cls(**values)


def _homes(cls: type[Any], key: str, prefix: str = "") -> list[str]:
    """Full names of the settings that are called so, in whatever section they lie."""
    found = []
    for name, kind in get_type_hints(cls).items():
        if name == key:
            found.append(f"{prefix}{name}")
        if dataclasses.is_dataclass(kind):
            found += _homes(kind, key, f"{prefix}{name}.")  # type: ignore[arg-type]
    return found


def _checked(kind: Any, value: Any, key: str) -> Any:
    import pydantic

    value = tuple(value) if isinstance(value, list) else value
    try:
        return pydantic.TypeAdapter(kind).validate_python(value, strict=not isinstance(value, int))
    except pydantic.ValidationError as error:
        fault = error.errors()[0]["msg"]
        near = difflib.get_close_matches(str(value), [str(known) for known in get_args(kind)], n=1)
        hint = f"did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{value!r}: {fault}", where=key, hint=hint) from error


def to_toml(config: PipelineConfig) -> str:
    """Write every setting, defaults too, so that the file alone repeats the run."""
    import tomli_w

    return tomli_w.dumps(dataclasses.asdict(config))


DISTILL: Mapping[str, str] = {
    "images": "few_shot.images",
    "teacher": "teacher.name",
    "pretrained": "teacher.pretrained",
    "student": "distillation.student",
    "student_init": "distillation.student_init",
    "prompts": "prompts.method",
    "num_styles": "prompts.num_styles",
    "synthesis": "synthesis.method",
    "imgsz": "distillation.image_size_px",
    "steps": "distillation.num_steps",
    "batch_size": "distillation.batch_size",
}
"""Flags of `distill` that name a setting otherwise; the rest are called like the setting."""
EXPORT: Mapping[str, str] = {
    "calib_size": "calibration_size",
    "calib_data": "calibration_data",
}
"""Flags of `export` that are called otherwise than the field of `[export]`."""


def distill_overrides(flags: Mapping[str, object]) -> list[str]:
    """Write what was given as the `a.b=c` texts that `load_config` reads.

    Args:
        flags: by name; None counts as not given, and a mapping as a whole section:
            `{"synthesis": {"num_images": 300}}`.
    """
    texts = []
    for name, value in flags.items():
        if isinstance(value, Mapping):
            texts += [_text(f"{name}.{key}", inner) for key, inner in value.items()]
        elif value is not None:
            texts.append(_text(DISTILL.get(name, name), value))
    return texts


def export_overrides(flags: Mapping[str, object]) -> list[str]:
    """Write the flags of `export` as `export.key=value` texts; None counts as not given."""
    given = {name: value for name, value in flags.items() if value is not None}
    return [_text(f"export.{EXPORT.get(name, name)}", value) for name, value in given.items()]


def _text(key: str, value: object) -> str:
    plain = fspath(value) if isinstance(value, PathLike) else value
    return f"{key}={json.dumps(plain, ensure_ascii=False)}"


RUNS = Path("runs")
"""Where run directories are made when none is named."""
