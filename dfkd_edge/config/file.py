"""The one way from TOML, `--set` and flags to the settings of a run, and back to TOML."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dfkd_edge.config.presets import read_preset
from dfkd_edge.config.settings import PipelineConfig
from dfkd_edge.errors import ConfigError, did_you_mean, nearest
from dfkd_edge.files import read_toml
from dfkd_edge.runtime.plain_text import code_point

if TYPE_CHECKING:
    import pydantic

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
MAX_SHOWN = 100  # Characters of a wrong value
Settings = Mapping[str, object]
"""Settings by name, sections as tables within, as a TOML file has them; not checked yet."""
PLAIN_WORDS = (
    (r"valid integer", "is not a whole number", "such as 8"),
    (r"valid number", "is not a number", "such as 0.01"),
    (r"finite number", "is not a finite number", "such as 0.01"),
    (r"valid boolean", "is neither true nor false", "write one of both, without quotes"),
    (r"valid string", "is not a text", 'texts stand in quotes, such as "mini"'),
    (r"valid (?:array|tuple|list)", "is not a list", 'such as [1, 4] or ["a", "b"]'),
    (r"valid (?:dictionary|object)", "is not a section", "such as {name = value}"),
    (r"greater than or equal to (\S+)", "is too small: at least {}", ""),
    (r"less than or equal to (\S+)", "is too large: at most {}", ""),
    (r"greater than (\S+)", "is too small: more than {}", ""),
    (r"less than (\S+)", "is too large: less than {}", ""),
    (r"Input should be ('.+)", "is none of {}", ""),
)
"""What a validator's message holds, the same in our words, and an example; the first one counts."""
FLAGS: Mapping[str, str] = {
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
    "calib_size": "export.calibration_size",
    "calib_data": "export.calibration_data",
    "runtime": "export.runtimes",
}
"""Flags that name a setting otherwise; the rest are called like theirs."""


def flag_of(key: str) -> str:
    """Name the flag of a setting that it is not called like, such as `--steps`; else empty."""
    return next((f"--{flag.replace('_', '-')}" for flag in FLAGS if FLAGS[flag] == key), "")


def load_config(path: Path | None, over: Settings | None = None) -> PipelineConfig:
    """Build the configuration of a run.

    Args:
        path: TOML file, or None for the defaults; a key `preset` names what it lies on.
        over: settings that replace those of the file; see `settings_of`.

    Raises:
        ConfigError: a file, key or value is wrong.
    """
    import pydantic  # a tenth of a second, which `--help` does not wait for

    try:
        tree = _laid_over(read_toml(path) if path else {}, over or {})
        _refuse_control_characters(tree)
        preset = tree.pop("preset", "")
        if preset != "":
            tree = _laid_over(read_preset(str(preset)), tree)
        # Strict, so that no number is guessed from a text. Only in JSON does pydantic's strict mode
        # take tables for dataclasses and lists for tuples.
        text = json.dumps(tree, default=str)
    except RecursionError as error:
        raise ConfigError(
            "sections lie too deep within each other", where=str(path or "")
        ) from error
    try:
        return pydantic.TypeAdapter(PipelineConfig).validate_json(text, strict=True)
    except pydantic.ValidationError as error:
        raise _refusal(error) from error


def settings_of(
    texts: Iterable[str] = (), flags: Settings | None = None, section: str = ""
) -> Settings:
    """Nest what was given on the command line, or to the Python API.

    Args:
        texts: `a.b=c` of `--set`; values are TOML, bare words count as strings. Later ones win.
        flags: by name, above the texts; None counts as not given, and a mapping as a whole section:
            `{"synthesis": {"num_images": 300}}`.
        section: where flags lie that are called like their setting, such as `export.`.

    Raises:
        ConfigError: a text is not KEY=VALUE.
    """
    given = [_parsed(text) for text in texts]
    for flag, value in (flags or {}).items():
        place = section + flag if isinstance(value, Mapping) else FLAGS.get(flag, section + flag)
        given += [(place, value)] if value is not None else []
    tree: dict[str, object] = {}
    for key, value in given:
        name, *sections = reversed(key.split("."))
        branch = {name: value}
        for section in sections:
            branch = {section: branch}
        tree = _laid_over(tree, branch)
    return tree


def _parsed(text: str) -> tuple[str, object]:
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not key:
        raise ConfigError(
            f"'{text}' is not KEY=VALUE", where="--set", hint="such as prompts.num_styles=8"
        )
    try:
        parsed = tomllib.loads(f"value = {value}")  # 8, true, [1, 2] or "text"
    except (ValueError, RecursionError):  # the latter: brackets without end
        return key, value
    if len(parsed) > 1:
        raise ConfigError(f"'{text}' sets more than one thing", where="--set", hint="repeat --set")
    return key, parsed["value"]


def _laid_over(base: Settings, over: Settings) -> dict[str, object]:
    """Lay settings over others: sections merge, values replace."""
    tree = dict(base)
    for key, value in over.items():
        below = base.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            value = _laid_over(below, value)
        tree[key] = value
    return tree


def _refuse_control_characters(value: object, key: str = "") -> None:
    """Refuse what no text of ours holds: in quotes, `C:\\temp` of Windows begins with a tab."""
    if isinstance(value, Mapping):
        for name, below in value.items():
            _refuse_control_characters(below, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_control_characters(item, key)
    elif isinstance(value, str) and (found := CONTROL.search(value)):
        raise ConfigError(
            f"{value!r} holds the control character {code_point(found[0])}",
            where=key,
            hint="write paths of Windows with / or in 'single quotes'",
        )


def _refusal(error: pydantic.ValidationError) -> ConfigError:
    """Say of the first wrong setting what is wrong, where, and what was likely meant."""
    fault = error.errors()[0]
    key, kind = ".".join(part for part in fault["loc"] if isinstance(part, str)), fault["type"]
    if kind == "json_invalid":  # half a pair of UTF-16, as Python keeps bytes that are no UTF-8
        hint = "rename the file or folder"
        return ConfigError("a setting holds a name that is not UTF-8", where="config", hint=hint)
    if kind == "unexpected_keyword_argument":
        return ConfigError(f"unknown setting '{key}'", where="config", hint=_nearest(key))
    if kind == "dataclass_type":
        return ConfigError("is a section, not a value", where=key)
    flag = f" ({flag_of(key)})" if flag_of(key) else ""
    choices = re.findall("'(.+?)'", fault["msg"]) if kind == "literal_error" else ()
    value = repr(fault["input"])
    shown = value if len(value) <= MAX_SHOWN else value[:MAX_SHOWN] + "..."
    near = did_you_mean(str(fault["input"]).lower(), choices, "")
    what, example = in_plain_words(fault["msg"], shown)
    return ConfigError(what, where=f"{key}{flag}", hint=near or example)


def in_plain_words(message: str, value: str) -> tuple[str, str]:
    """Say what a validator found, and an example of what would do.

    Args:
        message: of pydantic, or of typer, which words its own alike.
        value: that was refused, as it is shown.

    Returns:
        What is wrong, and the hint; that is empty where no example helps.
    """
    for pattern, what, example in PLAIN_WORDS:
        if found := re.search(pattern, message):
            return f"{value} {what.format(*found.groups())}", example
    return f"{value}: {message}", ""


def _nearest(key: str) -> str:
    """Hint at settings of the same name in another section, else at the most alike one."""
    places = [other.rpartition(".") for other in _names(dataclasses.asdict(PipelineConfig()))]
    section, dot, name = key.rpartition(".")
    siblings = [other for home, _, other in places if home == section]
    near = ["".join(place) for place in places if place[2] == name]
    near = near or [section + dot + other for other in nearest(name, siblings)]
    return f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(siblings)}"


def _names(tree: Settings, prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        yield prefix + key
        if isinstance(value, Mapping):
            yield from _names(value, f"{prefix}{key}.")


def to_toml(config: PipelineConfig) -> str:
    """Write every setting, defaults too, so that the file alone repeats the run."""
    import tomli_w

    return tomli_w.dumps(dataclasses.asdict(config))
