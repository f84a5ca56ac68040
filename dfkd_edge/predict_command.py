"""The command `predict`: pictures through the recommended model of a bundle, with onnxruntime."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dfkd_edge.errors import ArtifactError, UsageError
from dfkd_edge.options import AsJson, BundleFolder, HeldPrecision, Threads
from dfkd_edge.runtime.rejection import FITTED_ON, SHARE_REJECTED, UNKNOWN

if TYPE_CHECKING:
    from dfkd_edge.runtime.bundle_files import Bundle
    from dfkd_edge.runtime.confidence import Confidence


def predict(
    bundle: BundleFolder,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Pictures or folders.")],
    top: Annotated[int, typer.Option("--top", help="Classes to show.", min=1)] = 3,
    precision: HeldPrecision = None,
    threads: Threads = 0,
    reject_threshold: Annotated[
        float | None,
        typer.Option(
            help="Score below which the answer is unknown (default: the bundle's own, which "
            f"refuses {SHARE_REJECTED:.0%} of the right answers on {FITTED_ON}).",
            min=0,
            max=1,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Classify pictures: labels and scores.

    The bundle's own threshold refuses few right answers. What is of no class may still score above
    it; a higher --reject-threshold refuses more of both.
    """
    _refuse_swapped(bundle, images)
    document = classify_pictures(bundle, images, top, precision, threads, reject_threshold)
    rows, skipped = document["pictures"], document["skipped"]
    if as_json:
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    else:
        _show_predictions(document)
    for line in skipped:
        sys.stderr.write(f"skipped: {line}\n")
    if skipped:
        raise ArtifactError(f"{len(skipped)} of {len(rows) + len(skipped)} could not be classified")


def _refuse_swapped(first: Path, others: list[Path]) -> None:
    """Refuse what cannot be a bundle where the bundle belongs, and say what to type.

    Raises:
        UsageError: the first path is a picture, or no bundle while one of the others is.
    """
    from dfkd_edge.runtime.bundle_files import may_be_bundle
    from dfkd_edge.runtime.folder_layouts import PICTURE_SUFFIXES

    is_picture = first.is_file() and first.suffix.lower() in PICTURE_SUFFIXES
    bundle = next((path for path in others if may_be_bundle(path)), None)
    if may_be_bundle(first) or not (bundle or is_picture):
        return
    pictures = [first, *(path for path in others if path != bundle)]
    words = ["dfkd-edge", "predict", str(bundle or "BUNDLE"), str(pictures[0])]
    more = " ..." if len(pictures) > 1 else ""
    raise UsageError(
        "no bundle, which the first argument must be",
        where=str(first),
        hint=f"type {shlex.join(words)}{more}",
    )


def classify_pictures(
    bundle: Path,
    images: list[Path],
    top: int,
    precision: str | None,
    threads: int,
    reject_threshold: float | None,
) -> dict[str, Any]:
    """Classify pictures and folders of pictures with the recommended model of a bundle.

    Args:
        bundle: a bundle, or a run with one.
        images: pictures and folders.
        top: classes to name.
        precision: of the model; None takes the recommended one.
        threads: of the CPU; 0 takes all cores.
        reject_threshold: score below which the answer is "unknown"; None takes the bundle's own.

    Returns:
        The document of `predict --json`; `skipped` says what could not be read and why.

    Raises:
        UsageError: no bundle, no such model, no picture, no such threshold.
        ArtifactError: the bundle is damaged.
    """
    from dfkd_edge.deployment.opening import find_bundle, held_precision, open_bundle

    opened = open_bundle(find_bundle(bundle))  # a wrong path is told of before numpy is loaded
    from dfkd_edge.runtime.doubts import graph_notes
    from dfkd_edge.runtime.sessions import OnnxSession, SessionRequest
    from dfkd_edge.runtime_faults import faults_as_errors

    confidence = opened.confidence
    if reject_threshold is not None:
        if not 0 <= reject_threshold <= 1:
            raise UsageError("must be 0 to 1", where="reject_threshold", hint="such as 0.6")
        confidence = dataclasses.replace(confidence, reject_threshold=reject_threshold)
    files, skipped = _pictures(images)
    with faults_as_errors():
        name = held_precision(opened, precision) if precision else opened.precision
        request = SessionRequest(
            opened.model_path(name), name, "onnxruntime", threads, full_range=opened.full_range
        )
        session = OnnxSession(request)
        answers = (_classify(session, opened, confidence, file, top, skipped) for file in files)
        rows = [row for row in answers if row]
    fitted = opened.confidence.reject_threshold
    return {
        "bundle": str(opened.folder),
        "precision": name,
        "notes": graph_notes(name, opened.manifest["models"]),
        "reject_threshold": confidence.reject_threshold,
        "threshold_fitted_on": FITTED_ON if fitted and reject_threshold is None else None,
        "pictures": rows,
        "skipped": skipped,
    }


def _pictures(paths: list[Path]) -> tuple[list[Path], list[str]]:
    """Expand folders, and name what is not there.

    Raises:
        UsageError: nothing is left.
    """
    from dfkd_edge.runtime.folder_layouts import PICTURE_SUFFIXES

    files: list[Path] = []
    skipped: list[str] = []
    for path in paths:
        found = sorted(f for f in path.rglob("*") if f.suffix.lower() in PICTURE_SUFFIXES)
        if path.is_dir() and not found:
            skipped.append(f"{path}: folder holds no picture")
        elif not path.exists():
            skipped.append(f"{path}: no such file")
        files += found if path.is_dir() else [path] if path.exists() else []
    if not files:
        raise UsageError("no picture to classify", where=skipped[0])
    return files, skipped


def _classify(
    session: Any, bundle: Bundle, confidence: Confidence, file: Path, top: int, skipped: list[str]
) -> dict[str, Any] | None:
    from dfkd_edge.runtime.faults import Fault, LackingFault
    from dfkd_edge.runtime.preprocess import read_picture

    try:
        image_HWC = read_picture(file, bundle.side_px)
    except LackingFault:
        raise
    except Fault as fault:
        skipped.append(f"{fault.where}: {fault.what}")
        return None
    logits_NK = session.run(image_HWC[None]).logits
    score_K = confidence.probabilities(logits_NK)[0]
    best = score_K.argsort()[::-1][:top]
    is_known = bool(confidence.is_known(logits_NK)[0])
    return {
        "file": str(file),
        "label": bundle.classes[best[0]] if is_known else UNKNOWN,
        "top": [{"label": bundle.classes[k], "score": float(score_K[k])} for k in best],
    }


def _show_predictions(document: dict[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from dfkd_edge.console import result_console

    table = Table()
    for column in ("picture", "label", "score", "then"):
        table.add_column(column, overflow="fold")
    for row in document["pictures"]:
        first, *others = row["top"]
        is_known = row["label"] == first["label"]
        then = ", ".join(
            f"{escape(o['label'])} {o['score']:.3f}" for o in (others if is_known else row["top"])
        )
        label = f"[bold]{escape(row['label'])}[/bold]"
        table.add_row(escape(row["file"]), label, f"{first['score']:.3f}", then)
    threshold, fitted_on = document["reject_threshold"], document["threshold_fitted_on"]
    footnote = "there is no threshold: no answer is unknown"
    if threshold:
        footnote = f"unknown: score below {threshold:.3f}"
    if fitted_on:
        footnote += f", which refuses {SHARE_REJECTED:.0%} of the right answers on {fitted_on}"
    console = result_console()
    console.print(table)
    for note in document["notes"]:
        console.print(f"[yellow]note:[/yellow] {escape(note)}", soft_wrap=True)
    console.print(f"[dim]{footnote}[/dim]", soft_wrap=True)
