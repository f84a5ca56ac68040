"""The command `predict`: pictures through the recommended model of a bundle, with onnxruntime."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

from rich.markup import escape
from rich.table import Table
from typer import Argument, Option

from dfkd_edge.bundles.predict import PredictRequest, classify_pictures
from dfkd_edge.commands import options as opt
from dfkd_edge.console import result_console
from dfkd_edge.errors import ArtifactError, UsageError
from dfkd_edge.runtime.bundle_files import may_be_bundle
from dfkd_edge.runtime.confidence import FITTED_ON, SHARE_REJECTED
from dfkd_edge.runtime.picture_walk import PICTURE_SUFFIXES
from dfkd_edge.runtime.plain_text import printable


def predict(
    bundle: opt.BundleFolder,
    images: Annotated[list[Path], Argument(metavar="IMAGE...", help="Pictures or folders.")],
    top: Annotated[int, Option("--top", help="Classes to show.", min=1)] = 3,
    precision: opt.HeldPrecision = None,
    threads: opt.Threads = 0,
    device: opt.GraphDevice = "cpu",
    reject_threshold: Annotated[
        float | None,
        Option(
            help="Score below which the answer is unknown (default: the bundle's own, which "
            f"refuses {SHARE_REJECTED:.0%} of the right answers on {FITTED_ON}).",
            min=0,
            max=1,
        ),
    ] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Classify pictures: labels and scores.

    The bundle's own threshold refuses few right answers. What is of no class may still score above
    it; a higher --reject-threshold refuses more of both.
    """
    _refuse_swapped(bundle, images)
    request = PredictRequest(
        images=images,
        top=top,
        precision=precision,
        num_threads=threads,
        device=device,
        reject_threshold=reject_threshold,
    )
    document = classify_pictures(bundle, request)
    rows, skipped = document["pictures"], document["skipped"]
    if as_json:
        opt.print_json(document)
    else:
        _show_predictions(document)
    for line in skipped:
        sys.stderr.write(printable(f"skipped: {line}") + "\n")
    if skipped:
        raise ArtifactError(f"{len(skipped)} of {len(rows) + len(skipped)} could not be classified")


def _refuse_swapped(first: Path, others: list[Path]) -> None:
    """Refuse a picture where the bundle belongs, or a bundle among the pictures."""
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


def _show_predictions(document: dict[str, Any]) -> None:
    table = Table()
    for column in ("picture", "label", "score", "then"):
        table.add_column(column, overflow="fold")
    for row in document["pictures"]:
        first, *others = row["top"]
        is_known = row["is_known"]
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
