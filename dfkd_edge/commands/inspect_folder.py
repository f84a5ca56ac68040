"""The command `inspect`: what a folder is, whether it is whole, and what to do with it next."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dfkd_edge.commands.options import AsJson
from dfkd_edge.config.settings import LATEST
from dfkd_edge.runtime.counting import counted, first_few

if TYPE_CHECKING:
    from dfkd_edge.errors import DfkdEdgeError
    from dfkd_edge.report.sources import BundleSource

STAGES = ("prompts", "surrogates", "student")
Document = dict[str, Any]
"""What `--json` prints."""


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
    """Whether a folder is a bundle, an unfinished or damaged one too."""
    from dfkd_edge.runtime.bundle_files import MANIFEST, MARKER, read_json, was_bundle
    from dfkd_edge.runtime.faults import Fault

    with contextlib.suppress(Fault):
        return read_json(path / MANIFEST).get("marker") == MARKER or was_bundle(path)
    return was_bundle(path)


def _verify(folder: Path) -> tuple[BundleSource | None, list[DfkdEdgeError]]:
    """Compare every file of a bundle with its manifest; read it where all are as written."""
    from dfkd_edge.bundles.opening import open_bundle
    from dfkd_edge.errors import ArtifactError, DfkdEdgeError
    from dfkd_edge.report.sources import read_bundle_source
    from dfkd_edge.runtime.bundle_files import damaged_files
    from dfkd_edge.runtime.repair_hints import repair_hint

    try:
        faults = damaged_files(folder, open_bundle(folder, verify=False).manifest)
        if not faults:
            return read_bundle_source(folder), []
    except DfkdEdgeError as error:
        return None, [error]
    hint = repair_hint(folder)
    return None, [ArtifactError(fault.what, where=fault.where, hint=hint) for fault in faults]


def _run(path: Path) -> Document:
    from dfkd_edge.bundles.of_run import bundles_of
    from dfkd_edge.class_names import read_class_names
    from dfkd_edge.commands.next_step import run_step
    from dfkd_edge.config.file import load_config
    from dfkd_edge.errors import ArtifactError
    from dfkd_edge.files import read_json
    from dfkd_edge.results.device import summaries
    from dfkd_edge.results.kept import EVALUATION
    from dfkd_edge.runs.lock import holder_of
    from dfkd_edge.runs.run_dir import damaged_files, distill_again, find_run, kept_in, read_stages
    from dfkd_edge.runtime.bundle_files import REPORT

    run = find_run(path)
    stages, again, holder = read_stages(run), distill_again(run), holder_of(run)
    changed = damaged_files(run, stages)
    damage: list[DfkdEdgeError] = [
        ArtifactError("changed", where=str(run / name), hint=again) for name in changed
    ]
    statuses, gates, current = {}, {}, []
    for folder in bundles_of(run):
        source, faults = _verify(folder)
        damage += faults
        statuses[folder.name] = source.status if source else "damaged"
        gates[folder.name] = source.decision if source else "damaged"
        if source and source.is_of(run):
            current.append(folder)
        elif source:
            gates[folder.name] += "; holds an earlier student of the run"
    devices, unread = summaries(run, current)
    damage += unread
    names, settings = run / "classes.txt", run / "config.toml"
    student = run / "student" / "student.json"
    following = damage[0].hint if damage else again
    if "student" in stages and not damage:
        following = run_step(run, str(run / REPORT))
    return {
        "kind": "run",
        "path": str(run),
        "classes": list(read_class_names(names).names) if names.is_file() else [],
        "stages": {
            **{stage: stage in stages for stage in STAGES},
            "evaluation": (run / EVALUATION).is_file(),
        },
        "kept": [] if "student" in stages else kept_in(run),
        "in_use_by": holder,
        "settings": dataclasses.asdict(load_config(settings)) if settings.is_file() else {},
        "student": read_json(student, again) if student.is_file() else {},
        "bundles": statuses,
        "gates": gates,
        "devices": devices,
        "size_bytes": _size(run),
        "num_verified": sum(len(record["files"]) for record in stages.values()) - len(changed),
        "damaged": [fault.where for fault in damage],
        "mend": damage[0].hint if damage else again,
        "next": f"wait for {holder}, which works in this run" if holder else following,
    }


def _bundle(path: Path) -> Document:
    from dfkd_edge.bundles.opening import open_bundle
    from dfkd_edge.commands.next_step import bundle_step
    from dfkd_edge.results.device import summaries
    from dfkd_edge.runtime.caveats import graph_notes
    from dfkd_edge.runtime.repair_hints import repair_hint

    bundle = open_bundle(path, verify=False)
    manifest, (source, faults) = bundle.manifest, _verify(path)
    devices, unread = summaries(path, [path] if source else [])
    damage = [*faults, *unread]
    mend = damage[0].hint if damage else repair_hint(path)
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
        "gate": source.decision if source else "damaged",
        "devices": devices,
        "version": manifest.version,
        "models": {name: manifest.files[file].bytes for name, file in manifest.models.items()},
        "input": f"uint8 NHWC RGB, {bundle.side_px} px, batch {'-'.join(map(str, bundle.batch))}",
        "provenance": manifest.provenance,
        "size_bytes": _size(path),
        "num_verified": len(manifest.files) - len(faults),
        "damaged": [f"{fault.where}: {fault.what}" for fault in damage],
        "mend": mend,
        "next": mend if damage else following,
    }


def _size(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file())


def _show(document: Document) -> None:
    from rich.markup import escape
    from rich.table import Table

    from dfkd_edge.console import result_console

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in _lines(document):
        if value:
            table.add_row(name, escape(value))
    result_console().print(table)


def _lines(document: Document) -> Iterator[tuple[str, str]]:
    names = document["classes"]
    yield document["kind"], document["path"]
    yield "classes", f"{len(names)}: {first_few(names, 8)}"
    yield from (_run_lines if document["kind"] == "run" else _bundle_lines)(document)
    yield from (("device", device["summary"]) for device in document["devices"])
    yield "size", f"{document['size_bytes'] / (1 << 20):.1f} MiB"
    verified = f"{counted(document['num_verified'], 'file')} as written"
    yield "verified", verified + "".join(f"; DAMAGED: {name}" for name in document["damaged"])
    yield "next", document["next"]


def _run_lines(document: Document) -> Iterator[tuple[str, str]]:
    stages = (f"{stage} {'done' if done else 'open'}" for stage, done in document["stages"].items())
    yield "stages", ", ".join(stages)
    kept, holder, student = document["kept"], document["in_use_by"], document["student"]
    goes_on = f"{', '.join(kept)}; the same distill command goes on from there"
    yield "kept", goes_on if kept else ""
    yield "in use", f"by {holder}" if holder else ""
    settings = document["settings"]
    if settings:
        text = f"teacher {settings['teacher']['name']}, prompts {settings['prompts']['method']}, "
        text += f"{settings['synthesis']['num_images']} images, "
        text += f"{settings['distillation']['num_steps']} steps, seed {settings['seed']}"
        yield "settings", text
    if student:
        num = student["num_parameters"] / 1e6
        yield "student", f"{student['timm_name']}, {num:.2f} M parameters"
    yield from ((f"bundle {name}", gate) for name, gate in document["gates"].items())


def _bundle_lines(document: Document) -> Iterator[tuple[str, str]]:
    models = (f"{name} {size / (1 << 20):.2f} MiB" for name, size in document["models"].items())
    yield "target", f"{document['target']}, runs on {document['backend']}"
    yield "models", f"{', '.join(models)}; recommended: {document['precision']}"
    yield from (("note", note) for note in document["notes"])
    yield "gate", document["gate"]
    yield "input", document["input"]
    yield "made by", f"dfkd-edge {document['version']}"
