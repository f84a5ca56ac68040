"""The command `inspect`: what a folder is, whether it is whole, and what to do with it next."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.markup import escape
from rich.table import Table
from typer import Argument

from dfkd_edge.bundles.opening import bundles_of, open_bundle
from dfkd_edge.bundles.signature import is_signed
from dfkd_edge.class_names import read_class_names
from dfkd_edge.commands import options as opt
from dfkd_edge.config.file import load_config
from dfkd_edge.config.settings import LATEST
from dfkd_edge.console import result_console
from dfkd_edge.errors import ArtifactError, DfkdEdgeError
from dfkd_edge.files import read_json
from dfkd_edge.runs import run_dir
from dfkd_edge.runs.lock import holder_of
from dfkd_edge.runs.manifest import damaged_files
from dfkd_edge.runtime import bundle_files
from dfkd_edge.runtime.bundle_manifest import MARKER
from dfkd_edge.runtime.caveats import graph_name, graph_notes
from dfkd_edge.runtime.counting import counted, first_few
from dfkd_edge.runtime.faults import repair_hint

if TYPE_CHECKING:
    from dfkd_edge.report.sources import BundleSource

SIGNED = "model.sig, of whom is not checked here: dfkd-edge check BUNDLE --verify PUBLIC_KEY"
NOT_SIGNED = "none: dfkd-edge export --sign KEY makes one"
STAGES = ("prompts", "surrogates", "student")
Found = tuple[dict[str, Any], Iterable[tuple[str, str]]]
"""What `--json` prints, and what is shown of a run or a bundle alone; an empty row is not."""


def inspect(
    path: Annotated[Path, Argument(metavar="[PATH]", help="Run or bundle.")] = LATEST,
    as_json: opt.AsJson = False,
) -> None:
    """Tell what a run or bundle holds, verify every file, and name the next command."""
    found = _bundle(path) if _is_bundle(path) else _run(path)
    document = found[0]
    if as_json:
        opt.print_json(document)
    else:
        _show(found)
    damaged = document["damaged"]
    if damaged:
        differ = "is not as it was" if len(damaged) == 1 else "are not as they were"
        what = f"{counted(len(damaged), 'file')} {differ} written"
        raise ArtifactError(what, where=damaged[0], hint=document["mend"])


def _is_bundle(path: Path) -> bool:
    """Whether a folder is a bundle, an unfinished or damaged one too."""
    with contextlib.suppress(ArtifactError):
        manifest = read_json(path / bundle_files.MANIFEST)
        return manifest.get("marker") == MARKER or bundle_files.was_bundle(path)
    return bundle_files.was_bundle(path)


def _verify(folder: Path) -> tuple[BundleSource | None, list[DfkdEdgeError]]:
    """Compare every file of a bundle with its manifest; read it where all are as written."""
    from dfkd_edge.report.reading import read_bundle_source

    try:
        faults = bundle_files.damaged_files(folder, open_bundle(folder, verify=False).manifest)
        if not faults:
            return read_bundle_source(folder), []
    except DfkdEdgeError as error:
        return None, [error]
    hint = repair_hint(folder)
    return None, [ArtifactError(fault.what, where=fault.where, hint=hint) for fault in faults]


def _run(path: Path) -> Found:
    run = run_dir.find_run(path)  # a wrong path is told of before numpy is loaded
    from dfkd_edge.artifacts import StudentSettings
    from dfkd_edge.commands.panel import run_step
    from dfkd_edge.results.device import summaries

    stages, again, holder = run_dir.read_stages(run), run_dir.distill_again(run), holder_of(run)
    changed = damaged_files(run, stages)
    damage: list[DfkdEdgeError] = [
        ArtifactError("changed", where=str(run / name), hint=again) for name in changed
    ]
    statuses, gates, current = {}, {}, []
    for folder in bundles_of(run):
        source, faults = _verify(folder)
        damage += faults
        statuses[folder.name] = source.bundle.manifest.status if source else "damaged"
        gates[folder.name] = source.decision if source else "damaged"
        if source and source.is_of(run):
            current.append(folder)
        elif source:
            gates[folder.name] += "; holds an earlier student of the run"
    devices, unread = summaries(run, current)
    damage += unread
    following = mend = damage[0].hint if damage else again
    if "student" in stages and not damage:
        following = run_step(run, str(run / bundle_files.REPORT))
    listed, file = run / "classes.txt", run / "config.toml"
    config = load_config(file) if file.is_file() else None
    is_there = (run / "student" / "student.json").is_file()
    student = StudentSettings.load(run / "student") if is_there else None
    document: dict[str, Any] = {
        "kind": "run",
        "path": str(run),
        "classes": list(read_class_names(listed).names) if listed.is_file() else [],
        "stages": {stage: stage in stages for stage in STAGES}
        | {"evaluation": (run / "evaluation.json").is_file()},
        "kept": [] if "student" in stages else run_dir.kept_in(run),
        "in_use_by": holder,
        "settings": dataclasses.asdict(config) if config else {},
        "student": dataclasses.asdict(student) if student else {},
        "bundles": statuses,
        "gates": gates,
        "devices": devices,
        "size_bytes": _size(run),
        "num_verified": sum(len(record["files"]) for record in stages.values()) - len(changed),
        "damaged": [fault.where for fault in damage],
        "mend": mend,
        "next": f"wait for {holder}, which works in this run" if holder else following,
    }
    made = config and (
        f"teacher {config.teacher.name}, prompts {config.prompts.method}, "
        f"{config.synthesis.num_images} images, {config.distillation.num_steps} steps, "
        f"seed {config.seed}"
    )
    done = (f"{stage} {'done' if it else 'open'}" for stage, it in document["stages"].items())
    goes_on = f"{', '.join(document['kept'])}; the same distill command goes on from there"
    about = ""
    if student:
        about = f"{student.timm_name}, {student.num_parameters / 1e6:.2f} M parameters"
    return document, [
        ("stages", ", ".join(done)),
        ("kept", goes_on if document["kept"] else ""),
        ("in use", f"by {holder}" if holder else ""),
        ("settings", made or ""),
        ("student", about),
        *((f"bundle {name}", gate) for name, gate in gates.items()),
    ]


def _bundle(path: Path) -> Found:
    bundle = open_bundle(path, verify=False)  # a wrong path is told of before numpy is loaded
    from dfkd_edge.commands.panel import bundle_step
    from dfkd_edge.results.device import summaries

    manifest, (source, faults) = bundle.manifest, _verify(path)
    devices, unread = summaries(path, [path] if source else [])
    damage = [*faults, *unread]
    mend = damage[0].hint if damage else repair_hint(path)
    check = shlex.join(["dfkd-edge", "check", str(path)])
    following = bundle_step(path) if manifest.status == "passed" else check
    document: dict[str, Any] = {
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
        "input": f"{bundle.input_dtype} NHWC RGB, {bundle.side_px} px, "
        f"batch {'-'.join(map(str, dict.fromkeys(bundle.batch)))}",
        "signed": is_signed(path),
        "provenance": manifest.provenance,
        "size_bytes": _size(path),
        "num_verified": len(manifest.files) - len(faults),
        "damaged": [f"{fault.where}: {fault.what}" for fault in damage],
        "mend": mend,
        "next": mend if damage else following,
    }
    models = (
        f"{graph_name(name, manifest.precision, manifest.models)} {size / (1 << 20):.2f} MiB"
        for name, size in document["models"].items()
    )
    return document, [
        ("target", f"{manifest.target}, runs on {manifest.backend}"),
        ("models", f"{', '.join(models)}; recommended: {manifest.precision}"),
        *(("note", note) for note in document["notes"]),
        ("gate", document["gate"]),
        ("input", document["input"]),
        ("made by", f"dfkd-edge {manifest.version}"),
        ("signature", SIGNED if document["signed"] else NOT_SIGNED),
    ]


def _size(folder: Path) -> int:
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file())


def _show(found: Found) -> None:
    document, rows = found
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    names, verified = document["classes"], f"{counted(document['num_verified'], 'file')} as written"
    shown = (
        (document["kind"], document["path"]),
        ("classes", f"{len(names)}: {first_few(names, 8)}"),
        *rows,
        *(("device", device["summary"]) for device in document["devices"]),
        ("size", f"{document['size_bytes'] / (1 << 20):.1f} MiB"),
        ("verified", verified + "".join(f"; DAMAGED: {name}" for name in document["damaged"])),
        ("next", document["next"]),
    )
    for name, value in shown:
        if value:
            table.add_row(escape(name), escape(value))
    result_console().print(table)
