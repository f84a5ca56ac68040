"""The command `predict`: pictures and videos through a bundle's model, with onnxruntime."""

import contextlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from dfkd_edge.bundles.predict import Predictor, PredictRequest
from dfkd_edge.bundles.sources import is_url, without_secrets
from dfkd_edge.commands import options as opt
from dfkd_edge.commands.predict_view import VIEWS, Pulse, View, WholeDocument
from dfkd_edge.errors import ArtifactError, UsageError, did_you_mean
from dfkd_edge.machine.interruption import Terminated
from dfkd_edge.runtime.bundle_files import may_be_bundle
from dfkd_edge.runtime.caveats import GATE_FAILED
from dfkd_edge.runtime.confidence import FITTED_ON, SHARE_REJECTED
from dfkd_edge.runtime.picture_walk import PICTURE_SUFFIXES
from dfkd_edge.runtime.plain_text import one_line, printable


def predict(
    bundle: opt.BundleFolder,
    images: Annotated[
        list[str],
        Argument(
            metavar="IMAGE...",
            help="Pictures, folders, videos, cameras (0, /dev/video0), streams (rtsp://HOST/PATH), "
            "or - for standard input: one picture, or paths, one a line.",
        ),
    ],
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
    style: Annotated[
        str,
        Option(
            "--format",
            help="table, or each answer at once as a line: jsonl or csv.",
            show_default=False,
        ),
    ] = "table",
    annotate: Annotated[
        Path | None,
        Option(
            metavar="OUT.mp4", help="Draw the answers into a copy of the video.", show_default=False
        ),
    ] = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Classify pictures and videos: labels and scores.

    The bundle's own threshold refuses few right answers. What is of no class may still score above
    it; a higher --reject-threshold refuses more of both. Ctrl-C ends a camera or a stream.
    """
    if style not in VIEWS or (as_json and style != "table"):
        hint = "leave out one of both" if style in VIEWS else did_you_mean(style, VIEWS)
        raise UsageError(f"cannot be {style}", where="--format", hint=hint)
    _refuse_swapped(bundle, images)
    request = PredictRequest(
        images=images,
        top=top,
        precision=precision,
        num_threads=threads,
        device=device,
        reject_threshold=reject_threshold,
        annotate=annotate,
    )
    predictor = Predictor(bundle, request)
    if as_json:
        predictor.require_end()
    if predictor.head["status"] != "passed" and not quiet:
        sys.stderr.write(f"note: {GATE_FAILED}\n")
    view = WholeDocument(predictor) if as_json else VIEWS[style](predictor)
    lines_tell = style != "table" and sys.stdout.isatty()
    _show(predictor, view, Pulse(predictor, quiet or lines_tell))


def _refuse_swapped(first: Path, others_given: Sequence[str]) -> None:
    """Refuse a picture where the bundle belongs, or a bundle among the pictures."""
    what = "no bundle, which the first argument must be"
    url = str(first).replace(":/", "://", 1)  # a path takes two slashes for one
    if is_url(url):
        hint = "type dfkd-edge predict BUNDLE URL"
        raise UsageError(what, where=without_secrets(url), hint=hint)
    others = [Path(each) for each in others_given if not is_url(each)]
    is_picture = first.is_file() and first.suffix.lower() in PICTURE_SUFFIXES
    bundle = next((path for path in others if may_be_bundle(path)), None)
    if may_be_bundle(first) or not (bundle or is_picture):
        return
    pictures = [first, *(path for path in others if path != bundle)]
    words = ["dfkd-edge", "predict", str(bundle or "BUNDLE"), str(pictures[0])]
    more = " ..." if len(pictures) > 1 else ""
    raise UsageError(
        what,
        where=str(first),
        hint=f"type {shlex.join(words)}{more}",
    )


def _show(predictor: Predictor, view: View, pulse: Pulse) -> None:
    """Show all answers; whatever ends them, those that came are shown with the summary.

    Raises:
        ArtifactError: something could not be read, or a stream broke.
        KeyboardInterrupt: it was stopped before its end; a live source has no other.
    """
    try:
        with contextlib.closing(predictor.rows()) as rows:  # finishes a video that is drawn
            for row in rows:
                view.add(row)
                pulse.beat(row)
    except KeyboardInterrupt as stop:
        if not predictor.is_live or isinstance(stop, Terminated):
            raise
    finally:
        pulse.clear()
        stopped = sys.exception()
        is_read = not isinstance(stopped, BrokenPipeError)
        if is_read and (predictor.tally.num_images or not stopped):
            view.end()
    for line in predictor.skipped:
        sys.stderr.write(printable(one_line(f"skipped: {line}")) + "\n")
    if predictor.skipped:
        num_all = predictor.tally.num_images + len(predictor.skipped)
        raise ArtifactError(f"{len(predictor.skipped)} of {num_all} could not be classified")
    if not predictor.tally.num_images:
        raise UsageError("no picture to classify", where="standard input")
