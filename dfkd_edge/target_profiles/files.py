"""Reads and checks the TOML files that describe targets, and joins them into a TargetProfile.

Every file is a flat table of fields, and `[sources]` says of each where it comes from:
`"sourced: ..."`, `"derived: ..."` or `"unverified: ..."`. `targets/README.md` explains the fields.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, get_args

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from dfkd_edge.config.file import in_plain_words
from dfkd_edge.errors import ConfigError, did_you_mean
from dfkd_edge.files import read_toml
from dfkd_edge.runtime.bundle_manifest import PLAIN_NAME
from dfkd_edge.runtime.plain_text import code_point, hidden_character
from dfkd_edge.target_profiles.profile import (
    Backend,
    Evidence,
    Fact,
    GraphInput,
    PowerMode,
    Precision,
    QuantizationSpec,
    TargetProfile,
    Typing,
)

POWER_MODE = "power_mode_"
FIRST_UINT8_TENSORRT = (8, 5)
"""Whose parser knows UINT8 as the type of an input; the branches 8.0, 8.2 and 8.4 do not."""
Checked = TypeVar("Checked")
Texts = Annotated[list[str], Field(min_length=1)]
Version = Annotated[str, Field(pattern=r"^\d+(\.\d+)+$")]
Opset = Annotated[int, Field(ge=13, le=25)]  # 13 brought QuantizeLinear one scale a channel
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0)]
PlainWord = Annotated[str, Field(pattern=rf"^{PLAIN_NAME.pattern}$")]
Source = Annotated[str, Field(pattern=rf"^({'|'.join(get_args(Evidence))}):")]


class PowerModeEntry(BaseModel, extra="forbid"):
    """One nvpmodel mode as a file states it."""

    id: Count
    name: PlainWord
    default: bool = False
    note: str = ""
    source: Source | None = None


class TargetFile(BaseModel, extra="forbid"):
    """What the file of a module, JetPack or board may state; None where it does not."""

    base: str = ""
    sources: dict[str, Source] = {}
    power_modes: list[PowerModeEntry] = []
    title: str | None = None
    family: str | None = None
    backend: Backend | None = None
    soc: str | None = None
    gpu_architecture: str | None = None
    sm: Annotated[int, Field(ge=50, le=200)] | None = None  # 53 is the Nano of 2019, 110 Thor
    cuda_cores: Count | None = None
    tensor_cores: Count | None = None
    gpu_max_mhz: Amount | None = None
    dla_cores: Count | None = None
    use_dla: bool | None = None
    ram_gib: Amount | None = None
    memory_bandwidth_gb_s: Amount | None = None
    int8_dense_tops: Amount | None = None
    int8_sparse_tops: Amount | None = None
    fp16_dense_tflops: Amount | None = None
    fp4_sparse_tops: Amount | None = None
    part_numbers: Texts | None = None
    cpu: str | None = None
    cpu_cores: Count | None = None
    cpu_max_mhz: Amount | None = None
    instructions: Texts | None = None
    precisions: Annotated[list[Precision], Field(min_length=1)] | None = None
    other_precisions: Texts | None = None
    quantization: str | None = None
    no_int8_reason: str | None = None
    min_calibration_images: Annotated[int, Field(ge=1, le=100_000)] | None = None
    jetpacks: Texts | None = None
    default_jetpack: str | None = None
    l4t: str | None = None
    cuda: str | None = None
    cudnn: str | None = None
    tensorrt: Version | None = None
    ubuntu: str | None = None
    python: Version | None = None
    max_onnxruntime: Version | None = None
    recommended_opset: Opset | None = None
    max_opset: Opset | None = None
    max_ir: Annotated[int, Field(ge=7, le=14)] | None = None
    typing: Typing | None = None
    has_dla_compiler: bool | None = None
    graph_input: GraphInput | None = None
    unsupported_ops: Texts | None = None
    caveats: Texts | None = None


@dataclass(frozen=True, slots=True)
class TargetFields:
    """The fields of one file, or of several laid over each other."""

    where: str  # The file, for messages
    values: Mapping[str, Any]  # As TargetFile has them; what no file states is left out
    facts: Mapping[str, Fact]
    power_modes: tuple[PowerMode, ...] = ()
    base: str = ""  # Name of what this file builds on; its own fields win

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
    where, tree = _where(path), read_toml(path)
    refuse_hidden(tree, where)
    file = _checked(TargetFile, tree, where)
    values = {key: tree[key] for key in tree if key not in ("base", "sources", "power_modes")}
    for key in file.sources.keys() - values.keys():
        raise _unknown_field(key, values, where, "[sources] names the unknown field")
    facts = {key: _fact(value, file.sources.get(key), where) for key, value in values.items()}
    modes, ids = file.power_modes, {mode.id for mode in file.power_modes}
    _expect(where, "power_modes", len(ids) == len(modes), "two modes share a number")
    _expect(where, "power_modes", sum(m.default for m in modes) <= 1, "two modes are default")
    for mode in modes:
        text = f"{mode.name}{' (default)' * mode.default}{mode.note and f'; {mode.note}'}"
        facts[f"{POWER_MODE}{mode.id}"] = _fact(text, mode.source, where)
    power_modes = (PowerMode(id=m.id, name=m.name, is_default=m.default) for m in modes)
    return TargetFields(where, values, facts, tuple(power_modes), file.base)


def refuse_hidden(tree: object, where: str) -> None:
    """Refuse text that a terminal or a script would take for more than text.

    Raises:
        ConfigError: a key or value holds a line break, a control or a bidirectional character.
    """
    for text in _texts(tree):
        if hidden := hidden_character(text):
            what = f"holds the hidden character {code_point(hidden)}"
            raise ConfigError(what, where=where, hint="write each text in one line, without it")


def _texts(tree: object) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict):
        for part in (*tree, *tree.values()):
            yield from _texts(part)
    elif isinstance(tree, list):
        for part in tree:
            yield from _texts(part)


def read_quantization_spec(
    path: Traversable, name: str
) -> tuple[QuantizationSpec, dict[str, Fact]]:
    """Read one file of `quantization/`.

    Raises:
        ConfigError: a field is unknown or has the wrong type.
    """
    where, tree = _where(path), read_toml(path)
    refuse_hidden(tree, where)
    sources = _checked(dict[str, Source], tree.pop("sources", {}), where)
    facts = {f"quantization.{k}": _fact(v, sources.get(k), where) for k, v in tree.items()}
    return _checked(QuantizationSpec, {"name": name, **tree}, where), facts


def build_profile(
    name: str,
    module: str,
    jetpack: str | None,
    table: TargetFields,
    quantization: tuple[QuantizationSpec, dict[str, Fact]] | None,
) -> TargetProfile:
    """Turn checked fields into the profile that exporters and lint obey.

    `quantization` is the spec that `table` names, with its facts. INT8 is left out, with the
    reason, where the hardware or the DLA compiler cannot run it.

    Raises:
        ConfigError: fields are missing or contradict each other.
    """
    if not PLAIN_NAME.fullmatch(name):
        what = f"target is named {name!r}: letters, digits and . _ - + @ are allowed"
        raise ConfigError(what, where=table.where, hint="rename its file")
    spec, facts = quantization or (None, {})
    about = {"name": name, "module": module, "jetpack": jetpack, "quantization": spec}
    try:
        profile = TypeAdapter(TargetProfile).validate_python(
            {**table.values, **about, "power_modes": table.power_modes, "facts": table.facts}
        )
    except ValidationError as error:
        missing = ", ".join(str(fault["loc"][0]) for fault in error.errors())
        raise ConfigError(
            f"target lacks {missing}",
            where=table.where,
            hint='state them, or name a base such as base = "x86-cpu"',
        ) from error
    _check_consistency(profile, table)
    reason = ""
    if profile.use_dla and profile.typing == "weak":
        reason = "DLA below TensorRT 11 takes no explicit Q/DQ, so the bundle carries FP16"
    elif "int8" not in profile.precisions:
        reason = profile.no_int8_reason or f"{table.where} lists no int8"
    return replace(
        profile,
        precisions=tuple(p for p in profile.precisions if p != "int8" or not reason),
        quantization=None if reason else spec,
        no_int8_reason=reason,
        facts=table.facts if reason else {**table.facts, **facts},
    )


def _check_consistency(profile: TargetProfile, table: TargetFields) -> None:
    expect = functools.partial(_expect, table.where)
    ordered = tuple(p for p in get_args(Precision) if p in profile.precisions)
    expect("precisions", profile.precisions == ordered, f"write it as {[*ordered]}, best last")
    newest = profile.max_opset
    is_known = profile.recommended_opset <= newest
    expect("recommended_opset", is_known, f"must not exceed max_opset = {newest}")
    for key in ("tensorrt", "typing", "sm") if profile.backend == "tensorrt" else ():
        expect(key, key in table.values, 'is needed where backend = "tensorrt"')
    if profile.backend == "tensorrt" and profile.graph_input == "uint8":
        version = tuple(map(int, (profile.tensorrt or "0").split(".")[:2]))
        has_uint8 = version >= FIRST_UINT8_TENSORRT
        expect("graph_input", has_uint8, 'must be "float32" before TensorRT 8.5')
    has_spec = profile.quantization is not None or "int8" not in ordered
    expect("quantization", has_spec, "must name a spec where precisions has int8")
    if profile.use_dla:
        expect("use_dla", table.values.get("dla_cores", 0) > 0, "the module has no DLA")
        has_compiler = table.values.get("has_dla_compiler", False)
        expect("use_dla", has_compiler, "the JetPack has no DLA compiler")


def _where(path: Traversable | Path) -> str:
    """A file of the user's by its path, one that is installed by its name."""
    return str(path) if isinstance(path, Path) else path.name


def _checked(kind: type[Checked], tree: Mapping[str, object], where: str) -> Checked:
    """Read a table as a type, strictly, so that no number is guessed from a text."""
    try:
        # only in JSON does pydantic's strict mode take a table for a dataclass
        return TypeAdapter(kind).validate_json(json.dumps(tree, default=str), strict=True)
    except ValidationError as error:
        fault = error.errors()[0]
    key, *below = map(str, fault["loc"])
    if not below and fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = TargetFile.model_fields if kind is TargetFile else QuantizationSpec.__annotations__
        raise _unknown_field(key, known, where, "unknown field")
    place, is_missing = ".".join([key, *below]), fault["type"] == "missing"
    what, hint = in_plain_words(fault["msg"], repr(fault["input"]))
    # of what is missing, the value would be the whole table
    raise ConfigError(fault["msg"] if is_missing else what, where=f"{where}: {place}", hint=hint)


def _fact(value: object, source: str | None, where: str) -> Fact:
    """Join a value with what `[sources]` says of it; silence counts as unverified."""
    text = json.dumps(value) if isinstance(value, bool) else str(value)
    text = ", ".join(value) if isinstance(value, list) else text
    if source is None:
        return Fact(value=text, source=f"stated in {where}", evidence="unverified")
    evidence, _, origin = source.partition(":")
    return Fact(value=text, source=origin.strip(), evidence=cast(Evidence, evidence))


def _expect(where: str, key: str, holds: bool, what: str) -> None:
    if not holds:
        raise ConfigError(what, where=f"{where}: {key}")


def _unknown_field(key: str, known: Iterable[str], where: str, what: str) -> ConfigError:
    hint = did_you_mean(key, known, "targets/README.md lists the fields")
    return ConfigError(f"{what} '{key}'", where=where, hint=hint)
