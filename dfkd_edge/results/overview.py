"""Runs and bundles below a folder as rows: read from their small files, none is hashed."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dfkd_edge.class_names import read_class_names
from dfkd_edge.config.file import load_config
from dfkd_edge.errors import DfkdEdgeError, UsageError, faults_as_errors
from dfkd_edge.files import read_json
from dfkd_edge.results.certainty import Certainty, certainty_of
from dfkd_edge.results.kept import EVALUATION, kept_checks, read_ladder
from dfkd_edge.results.ladder import Ladder
from dfkd_edge.results.swap import KEY as SWAP
from dfkd_edge.runs.manifest import MARKER as RUN_MARKER
from dfkd_edge.runs.manifest import STAGES, read_manifest
from dfkd_edge.runtime import bundle_files
from dfkd_edge.runtime.bundle_manifest import MARKER as BUNDLE_MARKER
from dfkd_edge.runtime.bundle_manifest import Manifest
from dfkd_edge.runtime.faults import MANIFEST

Values = Mapping[str, object]  # Settings by their dotted names
SHOWN_APART = ("classes", "data", "device", "teacher.name", "export.data")
"""Settings that have a column of their own, or change no student."""
WEIGHTS = "student/student.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A run or a bundle, or what is the matter with it."""

    kind: str  # `run` or `bundle`
    path: Path
    num_classes: int | None = None
    teacher: str = ""
    settings: Values = field(default_factory=dict)
    measured: Certainty | None = None  # By the ladder to trust most
    size_bytes: int | None = None  # Of the student, or of the graph that a bundle recommends
    latency_ms: float | None = None  # Of that, on the machine that measured
    verdict: str = ""
    fault: str = ""  # Why nothing else is known; empty for what is whole


def find_entries(folder: Path) -> list[Entry]:
    """Read every run and bundle below a folder, or the folder itself; a damaged one is a row too.

    Raises:
        UsageError: there is no such folder.
    """
    if not folder.is_dir():
        raise UsageError("no such folder", where=str(folder), hint="name a folder with runs in it")
    return [_entry(kind, place) for kind, place in _places(folder)]


def differing(entries: Iterable[Entry]) -> tuple[str, ...]:
    """Name the settings in which entries of a kind differ, in the order of their files."""
    seen: dict[tuple[str, str], set[str]] = {}
    for entry in entries:
        for name, value in entry.settings.items():
            seen.setdefault((entry.kind, name), set()).add(repr(value))
    return tuple(dict.fromkeys(name for (_, name), values in seen.items() if len(values) > 1))


def _places(folder: Path) -> Iterator[tuple[str, Path]]:
    """Walk down, by name; a run is looked into for its bundles, a bundle is not."""
    for top, names, files in os.walk(folder):
        place = Path(top)
        names[:] = sorted(n for n in names if n[0] != "." and not Path(top, n).is_symlink())
        kind = _kind(place, names) if {MANIFEST, *bundle_files_of(files)} & {*files} else ""
        if kind:
            yield kind, place
        if kind == "bundle":
            names.clear()
        elif kind == "run":
            names[:] = [name for name in names if name not in {*STAGES, "few_shot", "devices"}]


def bundle_files_of(files: Sequence[str]) -> set[str]:
    """Files by which a bundle without its manifest is known."""
    return {bundle_files.CHECK, bundle_files.PREPROCESS} & {*files}


def _kind(place: Path, folders: Sequence[str]) -> str:
    """Tell runs from bundles, damaged ones too; empty for a manifest of someone else."""
    try:
        marker = read_json(place / MANIFEST).get("marker")
    except DfkdEdgeError:
        if bundle_files.was_bundle(place):
            return "bundle"
        return "run" if {*STAGES} & {*folders} else ""
    return {RUN_MARKER: "run", BUNDLE_MARKER: "bundle"}.get(str(marker), "")


def _entry(kind: str, place: Path) -> Entry:
    try:
        with faults_as_errors():
            return _run(place) if kind == "run" else _bundle(place)
    except (DfkdEdgeError, OSError) as error:
        return Entry(kind=kind, path=place, fault=str(error))


def _run(place: Path) -> Entry:
    manifest, listed = read_manifest(place), place / "classes.txt"
    assert manifest is not None  # it was read a moment ago
    lost = [n for r in manifest.stages.values() for n in r["files"] if not (place / n).is_file()]
    if lost:
        return Entry(kind="run", path=place, fault=f"{len(lost)} files are missing: {lost[0]}")
    file = place / "config.toml"
    settings = _flat(dataclasses.asdict(load_config(file))) if file.is_file() else {}
    teacher = str(settings.get("teacher.name", ""))
    ladder = read_ladder(place / EVALUATION)
    is_finished = "student" in manifest.stages
    done = ", ".join(stage for stage in STAGES if stage in manifest.stages) or "nothing"
    return Entry(
        kind="run",
        path=place,
        num_classes=len(read_class_names(listed)) if listed.is_file() else None,
        teacher=teacher,
        settings=_shown(settings),
        measured=certainty_of(ladder) if ladder else None,
        size_bytes=(place / WEIGHTS).stat().st_size if is_finished else None,
        latency_ms=ladder.shipped.latency_ms if ladder else None,
        verdict="distilled" if is_finished else f"unfinished: {done} done",
    )


def _bundle(place: Path) -> Entry:
    bundle = bundle_files.read_bundle(place)
    manifest = bundle.manifest
    for name, entry in manifest.files.items():
        path = bundle_files.safe_path(place, name)
        found = path.stat().st_size if path.is_file() else None
        if found != entry.bytes:
            what = "is missing" if found is None else f"has {found} bytes, not {entry.bytes}"
            return Entry(kind="bundle", path=place, fault=f"{name} {what}")
    proof = read_ladder(place / bundle_files.VALIDATION)
    labelled = [ladder for ladder in kept_checks(place) if ladder.metric == "top1"]
    ladder = next(iter(labelled), proof)
    made = manifest.provenance
    config, teacher = made.get("config"), made.get("teacher")
    settings = _flat({"export": config}) if isinstance(config, dict) else {}
    return Entry(
        kind="bundle",
        path=place,
        num_classes=len(bundle.classes),
        teacher=str(teacher.get("name", "")) if isinstance(teacher, dict) else "",
        settings=_shown(settings),
        measured=certainty_of(ladder) if ladder else None,
        size_bytes=_size(manifest),
        latency_ms=_latency_ms(proof),
        verdict=_verdict(manifest, proof),
    )


def _verdict(manifest: Manifest, proof: Ladder | None) -> str:
    gate = proof.gate.headline() if proof and proof.gate else f"gate {manifest.status}"
    swapped = "classes swapped; " if manifest.provenance.get(SWAP) else ""
    return f"{manifest.precision} for {manifest.target}: {swapped}{gate}"


def _size(manifest: Manifest) -> int:
    """Size of the graph that is recommended; FP16 may be a flag on that of FP32."""
    name = manifest.models.get(manifest.precision, manifest.models["fp32"])
    return manifest.files[name].bytes


def _latency_ms(proof: Ladder | None) -> float | None:
    """Time of the last rung that has one: INT8 of another processor has none here."""
    timed = [rung.latency_ms for rung in proof.rungs if rung.latency_ms] if proof else []
    return timed[-1] if timed else None


def _flat(tree: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:  # a manifest's lists are tuples of the settings
            found[prefix + key] = tuple(value) if isinstance(value, list) else value
    return found


def _shown(settings: Values) -> dict[str, object]:
    return {name: value for name, value in settings.items() if name not in SHOWN_APART}
