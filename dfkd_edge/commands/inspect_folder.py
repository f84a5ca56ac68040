"""The command `inspect`: what a folder is, whether it is whole, and what to do with it next."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dfkd_edge.commands.options import AsJson
from dfkd_edge.config.settings import LATEST
from dfkd_edge.runtime.counting import counted, first_few

if TYPE_CHECKING:
    from dfkd_edge.errors import DfkdEdgeError
    from dfkd_edge.runtime.bundle_files import Manifest


STAGES = ("prompts", "surrogates", "student")


def inspect(
    path: Annotated[
        Path, typer.Argument(metavar="[PATH]", help="Run or bundle.", show_default="runs/latest")
    ] = LATEST,
    as_json: AsJson = False,
) -> None:
    """Tell what a run or bundle holds, verify every file, and name the next command."""
    from dfkd_edge.errors import ArtifactError

    document = _bundle(path) if _is_bundle(path) else _run(path)
    if as_json:
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    else:
        _show(document)
    if document["damaged"]:
        num = len(document["damaged"])
        differ = "is not as it was" if num == 1 else "are not as they were"
        raise ArtifactError(
            f"{counted(num, 'file')} {differ} written",
            where=document["damaged"][0],
            hint=document["mend"],
        )


def _is_bundle(path: Path) -> bool:
    from dfkd_edge.runtime.bundle_files import MANIFEST, MARKER, was_bundle

    return _json_file(path / MANIFEST).get("marker") == MARKER or was_bundle(path)


def _run(path: Path) -> dict[str, Any]:
    from dfkd_edge.bundles.of_run import bundles_of
    from dfkd_edge.class_names import read_class_names
    from dfkd_edge.commands.next_step import run_step
    from dfkd_edge.runs.lock import holder_of
    from dfkd_edge.runs.run_dir import damaged_files, distill_again, find_run, kept_in, read_stages
    from dfkd_edge.runtime.bundle_files import REPORT
    from dfkd_edge.runtime.repair_hints import repair_hint

    run = find_run(path)
    stages = read_stages(run)
    own = [str(run / name) for name in damaged_files(run, stages)]
    num_files = sum(len(record["files"]) for record in stages.values())
    listed = run / "classes.txt"
    inside = [_state(run, folder) for folder in bundles_of(run)]
    unsound = [bundle for bundle in inside if bundle.faults]
    devices, unread = _devices(run, [b.folder for b in inside if not (b.faults or b.is_earlier)])
    damaged = [*own, *(fault for bundle in unsound for fault in bundle.faults)]
    damaged += [error.where for error in unread]
    done = {stage: stage in stages for stage in STAGES}
    done["evaluation"] = (run / "evaluation.json").is_file()
    mend = distill_again(run)
    if unsound and not own:
        mend = repair_hint(unsound[0].folder)
    elif unread and not own:
        mend = unread[0].hint
    holder = holder_of(run)
    next_step = mend
    if "student" in stages and not damaged:
        next_step = run_step(run, str(run / REPORT))
    return {
        "kind": "run",
        "path": str(run),
        "classes": list(read_class_names(listed).names) if listed.is_file() else [],
        "stages": done,
        "kept": [] if "student" in stages else kept_in(run),
        "in_use_by": holder,
        "settings": _settings(run),
        "student": _json_file(run / "student" / "student.json"),
        "bundles": {bundle.folder.name: bundle.status for bundle in inside},
        "gates": {bundle.folder.name: bundle.gate for bundle in inside},
        "devices": devices,
        "size_bytes": _size(run),
        "num_verified": num_files - len(own),
        "damaged": damaged,
        "mend": mend,
        "next": f"wait for {holder}, which works in this run" if holder else next_step,
    }


@dataclass(frozen=True, slots=True)
class BundleState:
    """A bundle, verified."""

    folder: Path
    status: str
    """As the manifest says, or `damaged`."""
    gate: str
    """What the gate decided, no firmer than its pictures allow, and what was repaired."""
    faults: tuple[str, ...] = ()
    """Files that are not as they were written."""
    is_earlier: bool = False
    """Whether it holds another student than the run by now."""


def _state(run: Path, folder: Path) -> BundleState:
    """Verify a bundle that lies in a run, and tell whether it holds that run's student."""
    from dfkd_edge.bundles.of_run import holds_student_of
    from dfkd_edge.bundles.opening import open_bundle
    from dfkd_edge.errors import DfkdEdgeError
    from dfkd_edge.runtime.bundle_files import damaged_files

    try:
        manifest = open_bundle(folder, verify=False).manifest
    except DfkdEdgeError as error:
        return BundleState(folder, "damaged", "damaged", (error.where,))
    faults = tuple(fault.where for fault in damaged_files(folder, manifest))
    if faults:
        return BundleState(folder, "damaged", "damaged", faults)
    is_earlier = not holds_student_of(run, manifest.provenance)
    gate = _gate_text(folder, manifest) + "; holds an earlier student of the run" * is_earlier
    return BundleState(folder, manifest.status, gate, is_earlier=is_earlier)


def _gate_text(folder: Path, manifest: Manifest) -> str:
    """Say what the gate of a whole bundle decided, and which layers that took."""
    from dfkd_edge.results.certainty import gate_headline, measure_of
    from dfkd_edge.results.kept import kept_checks, repair_text
    from dfkd_edge.runtime.bundle_files import VALIDATION

    gate = _json_file(folder / VALIDATION).get("gate")
    decided = gate_headline(gate) if gate else f"gate {manifest.status}"
    checked = [
        f"by check on labelled pictures: {gate_headline(check['gate'])}"
        for check in kept_checks(folder, _json_file)
        if measure_of(check) == "top1"
    ]
    decided = f"by export: {decided}" if checked else decided
    repaired = repair_text(manifest.provenance, manifest.model_notes)
    return "; ".join(filter(None, (decided, *checked, repaired)))


def _devices(
    folder: Path, bundles: Sequence[Path]
) -> tuple[list[dict[str, Any]], list[DfkdEdgeError]]:
    """What devices said, and whether of one of these bundles; and which results are damaged."""
    from dfkd_edge.files import file_hash
    from dfkd_edge.results.device import kept_results
    from dfkd_edge.runtime.bundle_files import MANIFEST

    known = {file_hash(bundle / MANIFEST) for bundle in bundles}
    results, unread = kept_results(folder, bundles)
    return [result.summary(known) for result in results], unread


def _bundle(path: Path) -> dict[str, Any]:
    from dfkd_edge.bundles.opening import open_bundle
    from dfkd_edge.commands.next_step import bundle_step
    from dfkd_edge.runtime.bundle_files import damaged_files
    from dfkd_edge.runtime.caveats import graph_notes
    from dfkd_edge.runtime.repair_hints import repair_hint

    bundle = open_bundle(path, verify=False)
    manifest = bundle.manifest
    faults = damaged_files(path, manifest)
    devices, unread = _devices(path, [] if faults else [path])
    damaged = [f"{fault.where}: {fault.what}" for fault in faults]
    damaged += [f"{error.where}: {error.what}" for error in unread]
    mend = unread[0].hint if unread and not faults else repair_hint(path)
    following = shlex.join(["dfkd-edge", "check", str(path)])
    if manifest.status == "passed":
        following = bundle_step(path)
    return {
        "kind": "bundle",
        "path": str(path.resolve()),
        "classes": list(bundle.classes),
        "target": manifest.target,
        "backend": manifest.backend,
        "precision": manifest.precision,
        "notes": graph_notes(bundle.precision, manifest.models),
        "status": manifest.status,
        "gate": "damaged" if faults else _gate_text(path, manifest),
        "devices": devices,
        "version": manifest.version,
        "models": {name: manifest.files[file].bytes for name, file in manifest.models.items()},
        "input": f"uint8 NHWC RGB, {bundle.side_px} px, batch {'-'.join(map(str, bundle.batch))}",
        "provenance": manifest.provenance,
        "size_bytes": _size(path),
        "num_verified": len(manifest.files) - len(faults),
        "damaged": damaged,
        "mend": mend,
        "next": mend if damaged else following,
    }


def _settings(run: Path) -> dict[str, Any]:
    import dataclasses

    from dfkd_edge.config.file import load_config

    file = run / "config.toml"
    return dataclasses.asdict(load_config(file)) if file.is_file() else {}


def _json_file(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def _size(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file())


def _show(document: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from dfkd_edge.console import result_console

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in _lines(document):
        table.add_row(name, escape(value))
    result_console().print(table)


def _lines(document: dict[str, Any]) -> list[tuple[str, str]]:
    names = document["classes"]
    shown = first_few(names, 8)
    size_mib = document["size_bytes"] / (1 << 20)
    verified = f"{counted(document['num_verified'], 'file')} as written"
    lines = [
        (document["kind"], document["path"]),
        ("classes", f"{len(names)}: {shown}"),
        *(_run_lines(document) if document["kind"] == "run" else _bundle_lines(document)),
        ("size", f"{size_mib:.1f} MiB"),
        ("verified", verified + "".join(f"; DAMAGED: {name}" for name in document["damaged"])),
        ("next", document["next"]),
    ]
    return [(name, value) for name, value in lines if value]


def _run_lines(document: dict[str, Any]) -> list[tuple[str, str]]:
    settings, student = document["settings"], document["student"]
    made_with = ""
    if settings:
        made_with = (
            f"teacher {settings['teacher']['name']}, prompts {settings['prompts']['method']}, "
            f"{settings['synthesis']['num_images']} images, "
            f"{settings['distillation']['num_steps']} steps, seed {settings['seed']}"
        )
    about = ""
    if student:
        about = f"{student['timm_name']}, {student['num_parameters'] / 1e6:.2f} M parameters"
    stages = (f"{stage} {'done' if done else 'open'}" for stage, done in document["stages"].items())
    goes_on = f"{', '.join(document['kept'])}; the same distill command goes on from there"
    return [
        ("stages", ", ".join(stages)),
        ("kept", goes_on if document["kept"] else ""),
        ("in use", f"by {document['in_use_by']}" if document["in_use_by"] else ""),
        ("settings", made_with),
        ("student", about),
        *((f"bundle {name}", gate) for name, gate in document["gates"].items()),
        *_device_lines(document),
    ]


def _device_lines(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [("device", str(device["summary"])) for device in document["devices"]]


def _bundle_lines(document: dict[str, Any]) -> list[tuple[str, str]]:
    models = (f"{name} {size / (1 << 20):.2f} MiB" for name, size in document["models"].items())
    return [
        ("target", f"{document['target']}, runs on {document['backend']}"),
        ("models", f"{', '.join(models)}; recommended: {document['precision']}"),
        *(("note", note) for note in document["notes"]),
        ("gate", document["gate"]),
        *_device_lines(document),
        ("input", document["input"]),
        ("made by", f"dfkd-edge {document['version']}"),
    ]
