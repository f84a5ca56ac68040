"""manifest.json of a bundle: what it must hold, in which ranges, and the hash that covers it.

It holds the hash of every other file, and its own: any byte that is changed, in it or in a file
that it lists, is found.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dfkd_edge.runtime.confidence import read_confidence
from dfkd_edge.runtime.documents import parse_json, read_raw
from dfkd_edge.runtime.faults import Fault, UsageFault, damage
from dfkd_edge.runtime.plain_text import code_point, hidden_character

MARKER, FORMAT = "dfkd-edge bundle", 2  # A reader refuses any other format
INCOMPLETE = "incomplete"  # Status until the real manifest is written, which comes last
OWN_HASH = "own_sha256"  # Of all the other keys, as they are written
CHANGED = "manifest was changed: it differs from its own hash"
PRECISIONS = ("fp32", "fp16", "int8")
BACKENDS = ("tensorrt", "onnxruntime")
MIN_CLASSES, MAX_CLASSES, MAX_NAME_CHARACTERS = 2, 1_000, 100
MAX_FILES, MAX_FILES_BYTES = 1_000, 1 << 34  # Of all together; far above any bundle
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")
"""Names that enter scripts, folders and tables: of targets, versions and machines."""
SHA256 = re.compile(r"[0-9a-f]{64}")
# types of what a manifest must hold
KINDS = {
    **dict.fromkeys(("version", "target", "backend", "machine", "precision", "status"), str),
    **dict.fromkeys(("int8_full_range", "use_dla"), bool),
    **dict.fromkeys(("models", "model_notes", "tolerance", "provenance", "files"), dict),
    "classes": list,
}


class FileEntry(NamedTuple):
    """What the manifest promises of a file."""

    sha256: str  # In hex
    bytes: int  # Its size


@dataclass(frozen=True)
class Manifest:
    """manifest.json, as `export` writes it; every key is required."""

    version: str  # Of the program that exported the bundle
    target: str  # Name of the target profile
    backend: str  # Runtime of the target: `tensorrt` or `onnxruntime`
    machine: str  # Processor architecture of the target, as Linux spells it
    precision: str  # The recommended one: `fp32`, `fp16` or `int8`
    status: str  # What the gate said on the host: `passed` or `failed`
    int8_full_range: bool  # Whether INT8 weights use all eight bits
    use_dla: bool  # Whether the engine is for the DLA
    classes: tuple[str, ...]  # Class names, in the order of the logits
    models: dict[str, str]  # Precision -> file of its graph
    model_notes: dict[str, dict[str, Any]]  # Precision -> what the conversion noted of its graph
    confidence: dict[str, Any] | None
    """What `export` fitted, see `read_confidence`; None where it fitted nothing."""
    tolerance: dict[str, dict[str, float]]
    """Precision -> how far the device's logits may be, as golden.TOLERANCE."""
    provenance: dict[str, Any]
    """Run, teacher, settings, seed: JSON of the host, which the device does not read."""
    files: dict[str, FileEntry]  # Name -> what it must be


def sealed(document: Mapping[str, Any]) -> bytes:
    """Write a manifest with its own hash in it, of all the rest; equal content, equal bytes."""
    rest = {key: value for key, value in document.items() if key != OWN_HASH}
    digest = hashlib.sha256(_text(rest)).hexdigest()
    return _text({**rest, OWN_HASH: digest})


def _text(document: Mapping[str, Any]) -> bytes:
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "surrogatepass")  # half a pair is refused by name later


def parse_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        UsageFault: it is no bundle's.
        Fault: it is damaged, changed, not whole, or of another format.
    """
    raw = read_raw(path)
    document = parse_json(raw, path)
    if document.get("marker") != MARKER and OWN_HASH in document:  # a run's has none
        raise damage(CHANGED, path)
    if document.get("marker") != MARKER:
        raise UsageFault("folder holds no bundle", str(path.parent), "run dfkd-edge export first")
    if document.get("status") == INCOMPLETE:
        what, hint = "bundle was never finished", "run the same dfkd-edge export again"
        raise Fault(what, str(path.parent), hint)
    if document.get("format") != FORMAT:
        raise _other_format(document.get("format"), path)
    if sealed(document).rstrip(b"\n") != raw.rstrip(b"\n"):  # editors add one at the end
        raise damage(CHANGED, path)
    wrong = _first_fault(document)
    if wrong:
        raise damage(f"manifest is not whole: {wrong}", path)
    read_confidence(document["confidence"], path)
    files = {name: FileEntry(e["sha256"], e["bytes"]) for name, e in document["files"].items()}
    values = {key: document[key] for key in KINDS}
    values.update(files=files, classes=tuple(document["classes"]))
    return Manifest(**values, confidence=document["confidence"])


def _other_format(found: object, path: Path) -> Fault:
    if found == 1:
        what = "bundle is of format 1, whose manifest no hash covers"
        return Fault(what, str(path), "export it again with this version of dfkd-edge")
    shown = found if isinstance(found, int) else "unknown"
    what = f"bundle has format {shown}, this program reads {FORMAT}"
    return Fault(what, str(path), "use the check.pyz of the bundle itself")


def _first_fault(document: dict[str, Any]) -> str:
    """Name the first key that is missing or wrong; empty for a whole manifest."""
    for key, kind in KINDS.items():
        if not isinstance(document.get(key), kind):
            return f"{key} is missing or of another type"
    if "confidence" not in document:
        return "confidence is missing"
    return next((key for key, holds in RULES.items() if not holds(document)), "")


def is_number(value: object, least: float, most: float) -> bool:
    """Whether a value is a number of a range, and no truth value."""
    return type(value) in (int, float) and least <= value <= most  # type: ignore[operator]


def why_no_name(name: object) -> str:
    """Say why a text is no class name that can be shown; empty where it is one."""
    if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARACTERS:
        return "class name is no text, empty or too long"
    hidden = hidden_character(name)
    return f"class name holds the hidden character {code_point(hidden)}" if hidden else ""


def _names_are_plain(document: dict[str, Any]) -> bool:
    keys = ("target", "version", "machine")
    return all(PLAIN_NAME.fullmatch(document[key]) for key in keys)


def _words_are_known(document: dict[str, Any]) -> bool:
    is_known = document["precision"] in PRECISIONS and document["backend"] in BACKENDS
    return is_known and document["status"] in ("passed", "failed")


def _classes_are_plain(document: dict[str, Any]) -> bool:
    names = document["classes"]
    is_plain = MIN_CLASSES <= len(names) <= MAX_CLASSES and not any(map(why_no_name, names))
    return is_plain and len(set(names)) == len(names)


def _files_are_whole(document: dict[str, Any]) -> bool:
    def is_entry(value: object) -> bool:
        return (
            isinstance(value, dict)
            and isinstance(value.get("sha256"), str)
            and SHA256.fullmatch(value["sha256"]) is not None
            and type(value.get("bytes")) is int
            and value["bytes"] >= 0
        )

    entries = document["files"].values()
    is_whole = len(entries) <= MAX_FILES and all(map(is_entry, entries))
    return is_whole and sum(entry["bytes"] for entry in entries) <= MAX_FILES_BYTES


def _models_are_listed(document: dict[str, Any]) -> bool:
    models = document["models"]
    return "fp32" in models and all(
        precision in PRECISIONS and isinstance(name, str) and name in document["files"]
        for precision, name in models.items()
    )


def _notes_are_objects(document: dict[str, Any]) -> bool:
    return all(isinstance(notes, dict) for notes in document["model_notes"].values())


def _limits_are_in_range(document: dict[str, Any]) -> bool:
    def is_limit(value: object) -> bool:
        return (
            isinstance(value, dict)
            and is_number(value.get("relative"), 0, 1)
            and is_number(value.get("agreement"), 0, 1)
        )

    held = {*document["models"], document["precision"]}
    limits = document["tolerance"]
    return held <= set(limits) and all(map(is_limit, limits.values()))


RULES: dict[str, Callable[[dict[str, Any]], bool]] = {
    "target, version or machine is no plain name": _names_are_plain,
    "precision, backend or status is unknown": _words_are_known,
    "classes": _classes_are_plain,
    "files": _files_are_whole,
    "models": _models_are_listed,
    "model_notes": _notes_are_objects,
    "tolerance is missing or out of range": _limits_are_in_range,
}
"""What must hold of the values, once each key has its type."""
