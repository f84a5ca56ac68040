"""Reads and checks the TOML files that describe targets, and joins them into a TargetProfile.

Every file is a flat table of fields, and `[sources]` says of each where it comes from:
`"sourced: ..."`, `"derived: ..."` or `"unverified: ..."`. `targets/README.md` explains the fields.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, cast, get_args

from dfkd_edge.errors import ConfigError
from dfkd_edge.target_profiles.profile import (
    Backend,
    Evidence,
    Fact,
    PowerMode,
    Precision,
    QuantizationSpec,
    TargetProfile,
    Typing,
)

NEEDED = ("family", "backend", "precisions", "recommended_opset", "max_opset", "max_ir")
POWER_MODE = "power_mode_"


@dataclass(frozen=True, slots=True)
class TargetFields:
    """The fields of one file, or of several laid over each other."""

    where: str
    """The file, for messages."""
    values: Mapping[str, Any]
    facts: Mapping[str, Fact]
    power_modes: tuple[PowerMode, ...] = ()
    base: str = ""
    """Name of what this file builds on; its own fields win."""

    def over(self, base: TargetFields) -> TargetFields:
        """Lay these fields over those of the file that they build on."""
        inherited = {
            key: fact
            for key, fact in base.facts.items()
            if key not in self.facts and not (self.power_modes and key.startswith(POWER_MODE))
        }
        return TargetFields(
            self.where,
            {**base.values, **self.values},
            {**self.facts, **inherited},
            self.power_modes or base.power_modes,
            base.base,
        )

    def on(self, jetpack: TargetFields) -> TargetFields:
        """Join a module with its JetPack: caveats of both count."""
        joined = self.over(jetpack)
        facts = dict(joined.facts)
        if "caveats" in jetpack.facts and "caveats" in self.facts:
            facts |= {"caveats": jetpack.facts["caveats"], "module_caveats": self.facts["caveats"]}
        caveats = [*jetpack.values.get("caveats", ()), *self.values.get("caveats", ())]
        return replace(joined, values={**joined.values, "caveats": caveats}, facts=facts)


def read_target_file(path: Traversable | Path) -> TargetFields:
    """Read and check one file of a module, JetPack or board.

    Raises:
        ConfigError: it is missing, no TOML, or a field is unknown or wrong; names file and field.
    """
    where = str(path) if isinstance(path, Path) else path.name
    tree = read_toml(path)
    base, modes = tree.pop("base", ""), tree.pop("power_modes", [])
    sources = tree.pop("sources", {})
    expect(isinstance(base, str), "must be the name of a target", where, "base")
    expect(isinstance(sources, dict), "must be a table", where, "[sources]")
    for key, value in tree.items():
        check_field(key, value, where)
    for key in sources:
        if key not in tree:
            raise unknown_field(key, tree, where, "[sources] names the unknown field")
    facts = {k: make_fact(v, sources.get(k), where, k) for k, v in tree.items()}
    power_modes = read_power_modes(modes, where)
    for mode, entry in zip(power_modes, modes, strict=True):
        note = f"; {entry['note']}" if "note" in entry else ""
        text = f"{mode.name}{' (default)' if mode.is_default else ''}{note}"
        facts[f"{POWER_MODE}{mode.id}"] = make_fact(text, entry.get("source"), where, "power_modes")
    return TargetFields(where, tree, facts, power_modes, base)


def read_quantization_spec(
    path: Traversable, name: str
) -> tuple[QuantizationSpec, dict[str, Fact]]:
    """Read one file of `quantization/`.

    Raises:
        ConfigError: a field is unknown or has the wrong type.
    """
    tree = read_toml(path)
    sources = tree.pop("sources", {})
    known = [f.name for f in fields(QuantizationSpec) if f.name != "name"]
    for key, value in tree.items():
        if key not in known:
            raise unknown_field(key, known, path.name, "unknown field")
        expect(isinstance(value, str | bool), "must be a text, true or false", path.name, key)
    facts = {
        f"quantization.{k}": make_fact(v, sources.get(k), path.name, k) for k, v in tree.items()
    }
    return QuantizationSpec(name=name, **tree), facts


def read_toml(path: Traversable | Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: it is missing, unreadable or no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError("no such target file", where=str(path)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"not a TOML file: {error}", where=str(path)) from error


def build_profile(
    name: str,
    module: str,
    jetpack: str | None,
    table: TargetFields,
    quantization: tuple[QuantizationSpec, dict[str, Fact]] | None,
) -> TargetProfile:
    """Turn checked fields into the profile that exporters and lint obey.

    Args:
        name: what the user calls the target.
        module: name of the module or board.
        jetpack: `6.2`, or None for a CPU board.
        table: all fields of the target.
        quantization: the spec that `table` names, with its facts.

    Raises:
        ConfigError: fields are missing or contradict each other.
    """
    values = table.values
    missing = [key for key in NEEDED if key not in values]
    if missing:
        raise ConfigError(
            f"target lacks {', '.join(missing)}",
            where=table.where,
            hint='state them, or name a base such as base = "x86-cpu"',
        )
    _check_consistency(values, table.where)
    precisions, spec, reason = tuple(values["precisions"]), quantization, ""
    if _dla_without_qdq(values):
        precisions = tuple(p for p in precisions if p != "int8")
        reason = "DLA below TensorRT 11 takes no explicit Q/DQ, so the bundle carries FP16"
    if "int8" not in precisions:
        spec = None
        reason = reason or values.get("no_int8_reason", f"{table.where} lists no int8")
    return TargetProfile(
        name=name,
        module=module,
        jetpack=jetpack,
        family=values["family"],
        backend=values["backend"],
        sm=values.get("sm"),
        ram_gib=values.get("ram_gib"),
        tensorrt=values.get("tensorrt"),
        python=values.get("python"),
        max_onnxruntime=values.get("max_onnxruntime"),
        recommended_opset=values["recommended_opset"],
        max_opset=values["max_opset"],
        max_ir=values["max_ir"],
        precisions=precisions,
        typing=values.get("typing"),
        use_dla=values.get("use_dla", False),
        unsupported_ops=tuple(values.get("unsupported_ops", ())),
        quantization=spec[0] if spec else None,
        no_int8_reason=reason,
        min_calibration_images=values.get("min_calibration_images", 500),
        power_modes=table.power_modes,
        caveats=tuple(values.get("caveats", ())),
        facts={**table.facts, **(spec[1] if spec else {})},
    )


def _check_consistency(values: Mapping[str, Any], where: str) -> None:
    ordered = [p for p in get_args(Precision) if p in values["precisions"]]
    expect(
        values["precisions"] == ordered, f"write it as {ordered}, best last", where, "precisions"
    )
    expect(
        values["recommended_opset"] <= values["max_opset"],
        f"must not exceed max_opset = {values['max_opset']}",
        where,
        "recommended_opset",
    )
    if values["backend"] == "tensorrt":
        for key in ("tensorrt", "typing", "sm"):
            expect(key in values, 'is needed where backend = "tensorrt"', where, key)
    if "int8" in values["precisions"]:
        expect(
            "quantization" in values,
            "must name a spec where precisions has int8",
            where,
            "quantization",
        )
    if values.get("use_dla"):
        expect(values.get("dla_cores", 0) > 0, "the module has no DLA", where, "use_dla")
        expect(
            values.get("has_dla_compiler", False),
            "the JetPack has no DLA compiler",
            where,
            "use_dla",
        )


def _dla_without_qdq(values: Mapping[str, Any]) -> bool:
    return bool(values.get("use_dla")) and values.get("typing") == "weak"


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
