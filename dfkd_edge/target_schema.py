"""The fields that a target's TOML file may have, and what each must look like."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from typing import cast, get_args

from dfkd_edge.errors import ConfigError
from dfkd_edge.target_profile import Backend, Evidence, Fact, PowerMode, Precision, Typing

TEXTS = list
FIELD_KINDS: dict[str, type] = {
    "title": str,
    "family": str,
    "backend": str,
    "soc": str,
    "gpu_architecture": str,
    "sm": int,
    "cuda_cores": int,
    "tensor_cores": int,
    "gpu_max_mhz": float,
    "dla_cores": int,
    "use_dla": bool,
    "ram_gib": float,
    "memory_bandwidth_gb_s": float,
    "int8_dense_tops": float,
    "int8_sparse_tops": float,
    "fp16_dense_tflops": float,
    "fp4_sparse_tops": float,
    "part_numbers": TEXTS,
    "cpu": str,
    "cpu_cores": int,
    "cpu_max_mhz": float,
    "instructions": TEXTS,
    "precisions": TEXTS,
    "other_precisions": TEXTS,
    "quantization": str,
    "no_int8_reason": str,
    "min_calibration_images": int,
    "jetpacks": TEXTS,
    "default_jetpack": str,
    "l4t": str,
    "cuda": str,
    "cudnn": str,
    "tensorrt": str,
    "ubuntu": str,
    "python": str,
    "max_onnxruntime": str,
    "recommended_opset": int,
    "max_opset": int,
    "max_ir": int,
    "typing": str,
    "has_dla_compiler": bool,
    "unsupported_ops": TEXTS,
    "caveats": TEXTS,
}
CHOICES: dict[str, tuple[str, ...]] = {
    "backend": get_args(Backend),
    "typing": get_args(Typing),
    "precisions": get_args(Precision),
}
LIMITS = {
    "recommended_opset": (13, 25),
    "max_opset": (13, 25),
    "max_ir": (7, 14),
    "min_calibration_images": (1, 100_000),
    "sm": (50, 200),
}
VERSIONS = ("tensorrt", "python", "max_onnxruntime")
KIND_NAMES = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list of texts",
}


def check_field(key: str, value: object, where: str) -> None:
    """Refuse an unknown field, a wrong type, a value out of range.

    Raises:
        ConfigError: names the file and the field.
    """
    kind = FIELD_KINDS.get(key)
    if kind is None:
        raise unknown_field(
            key, [*FIELD_KINDS, "base", "power_modes", "sources"], where, "unknown field"
        )
    fits = isinstance(value, int | float if kind is float else kind)
    fits = fits and (kind is bool or not isinstance(value, bool))
    if isinstance(value, list):
        fits = fits and bool(value) and all(isinstance(item, str) for item in value)
    expect(fits, f"{value!r} is not {KIND_NAMES[kind]}", where, key)
    if isinstance(value, int | float) and kind is not bool:
        low, high = LIMITS.get(key, (0, float("inf")))
        expect(low <= value <= high, f"{value!r} is out of range {low} to {high}", where, key)
    if key in VERSIONS:
        looks_right = re.fullmatch(r"\d+(\.\d+)+", str(value)) is not None
        expect(looks_right, f"{value!r} is no version such as 10.3", where, key)
    for item in value if isinstance(value, list) else [value]:
        choices = CHOICES.get(key)
        expect(
            choices is None or item in choices,
            f"{item!r} is not one of {', '.join(choices or ())}",
            where,
            key,
        )


def read_power_modes(modes: object, where: str) -> tuple[PowerMode, ...]:
    """Check and read the list of nvpmodel modes.

    Raises:
        ConfigError: a mode is incomplete, or two clash.
    """
    expect(isinstance(modes, list), "must be a list of tables", where, "power_modes")
    assert isinstance(modes, list)
    found = []
    for mode in modes:
        right = (
            isinstance(mode, dict)
            and not isinstance(mode.get("id"), bool)
            and isinstance(mode.get("id"), int)
            and isinstance(mode.get("name"), str)
            and isinstance(mode.get("default", False), bool)
            and not set(mode) - {"id", "name", "default", "note", "source"}
        )
        hint = 'each is { id = 0, name = "15W", default = true, note = "...", source = "..." }'
        if not right:
            raise ConfigError("wrong power mode", where=f"{where}: power_modes", hint=hint)
        found.append(
            PowerMode(id=mode["id"], name=mode["name"], is_default=mode.get("default", False))
        )
    numbers = [mode.id for mode in found]
    expect(len(set(numbers)) == len(numbers), "two modes share a number", where, "power_modes")
    expect(sum(m.is_default for m in found) <= 1, "two modes are default", where, "power_modes")
    return tuple(found)


def make_fact(value: object, source: object, where: str, key: str) -> Fact:
    """Join a value with what `[sources]` says of it; silence counts as unverified.

    Raises:
        ConfigError: the source does not begin with its evidence.
    """
    text = json.dumps(value) if isinstance(value, bool) else str(value)
    text = ", ".join(value) if isinstance(value, list) else text
    if source is None:
        return Fact(value=text, source=f"stated in {where}", evidence="unverified")
    evidence, colon, origin = str(source).partition(":")
    expect(
        bool(colon) and evidence in get_args(Evidence),
        f"source must begin with one of {', '.join(f'{e}:' for e in get_args(Evidence))}",
        where,
        f"sources.{key}",
    )
    return Fact(value=text, source=origin.strip(), evidence=cast(Evidence, evidence))


def expect(condition: bool, what: str, where: str, key: str) -> None:
    """Refuse a field unless the condition holds.

    Raises:
        ConfigError: names the file and the field.
    """
    if not condition:
        raise ConfigError(what, where=f"{where}: {key}")


def unknown_field(key: str, known: Iterable[str], where: str, what: str) -> ConfigError:
    """Make the error for a name that nobody knows, with the nearest known one."""
    near = difflib.get_close_matches(key, list(known), n=1)
    hint = f"did you mean {near[0]}?" if near else "targets/README.md lists the fields"
    return ConfigError(f"{what} '{key}'", where=where, hint=hint)
