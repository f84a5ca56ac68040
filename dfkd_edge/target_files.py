"""Reads and checks the TOML files that describe targets, and joins them into a TargetProfile.

Every file is a flat table of fields, and `[sources]` says of each where it comes from:
`"sourced: ..."`, `"derived: ..."` or `"unverified: ..."`. `targets/README.md` explains the fields.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, get_args

from dfkd_edge.errors import ConfigError
from dfkd_edge.target_profile import Fact, PowerMode, Precision, QuantizationSpec, TargetProfile
from dfkd_edge.target_schema import (
    check_field,
    expect,
    make_fact,
    read_power_modes,
    unknown_field,
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
