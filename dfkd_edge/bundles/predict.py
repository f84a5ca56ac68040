"""Pictures through the recommended model of a bundle, with onnxruntime."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfkd_edge.errors import UsageError, faults_as_errors
from dfkd_edge.runtime.confidence import FITTED_ON, UNKNOWN
from dfkd_edge.runtime.faults import PictureFault

if TYPE_CHECKING:
    from dfkd_edge.runtime.bundle_files import Bundle
    from dfkd_edge.runtime.confidence import Confidence
    from dfkd_edge.runtime.session import OnnxSession


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictRequest:
    """Which pictures, with which model, where."""

    images: Sequence[Path]  # Pictures and folders of pictures
    top: int = 3  # Classes to name
    precision: str | None = None  # Of the model; None takes the recommended one
    num_threads: int = 0  # Of the CPU; 0 takes all cores
    device: str = "cpu"  # Or `cuda`, with onnxruntime-gpu
    reject_threshold: float | None = None
    """Score below which the answer is "unknown"; None takes the bundle's own."""


def classify_pictures(bundle: Path, request: PredictRequest) -> dict[str, Any]:
    """Classify pictures with a model of a bundle, or of a run with one.

    Returns:
        The document of `predict --json`; `skipped` says what could not be read and why.

    Raises:
        UsageError: no bundle, no such model, no picture, no such threshold or device.
        ArtifactError: the bundle is damaged.
        EnvironmentLackingError: the device is not there.
    """
    from dfkd_edge.bundles.opening import find_bundle, held_precision, open_bundle

    opened = open_bundle(find_bundle(bundle))  # a wrong path is told of before numpy is loaded
    from dfkd_edge.runtime.caveats import graph_notes
    from dfkd_edge.runtime.session import OnnxSession, SessionRequest

    confidence, reject_threshold = opened.confidence, request.reject_threshold
    if reject_threshold is not None:
        if not 0 <= reject_threshold <= 1:
            raise UsageError("must be 0 to 1", where="reject_threshold", hint="such as 0.6")
        confidence = dataclasses.replace(confidence, reject_threshold=reject_threshold)
    files, skipped = _pictures(request.images)
    with faults_as_errors():
        precision = request.precision
        name = held_precision(opened, precision) if precision else opened.precision
        model = SessionRequest(
            opened.model_path(name),
            name,
            num_threads=request.num_threads,
            full_range=opened.manifest.int8_full_range,
            device=request.device,
        )
        session = OnnxSession(model)
        rows = []
        for file in files:
            try:
                rows.append(_classify(session, opened, confidence, file, request.top))
            except PictureFault as fault:  # the others are classified all the same
                skipped.append(f"{fault.where}: {fault.what}")
    fitted = opened.confidence.reject_threshold
    return {
        "bundle": str(opened.folder),
        "precision": name,
        "notes": graph_notes(name, opened.manifest.models),
        "reject_threshold": confidence.reject_threshold,
        "threshold_fitted_on": FITTED_ON if fitted and reject_threshold is None else None,
        "pictures": rows,
        "skipped": skipped,
    }


def _pictures(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Expand folders, and name what is not there."""
    from dfkd_edge.runtime.picture_walk import walk

    files: list[Path] = []
    skipped: list[str] = []
    for path in paths:
        if not path.is_dir():
            is_there = path.exists()
            files += [path] if is_there else []
            skipped += [] if is_there else [f"{path}: no such file"]
            continue
        with faults_as_errors():
            tree = walk(path)
        found = tree.pictures()
        files += found
        skipped += tree.why_unread()
        if not (found or tree.why_unread()):
            skipped.append(f"{path}: folder holds no picture")
    if not files:
        raise UsageError("no picture to classify", where=skipped[0])
    return files, skipped


def _classify(
    session: OnnxSession, bundle: Bundle, confidence: Confidence, file: Path, top: int
) -> dict[str, Any]:
    from dfkd_edge.runtime.preprocess import read_picture

    logits_NK = session.run(read_picture(file, bundle.side_px)[None]).logits
    score_K = confidence.probabilities(logits_NK)[0]
    best = score_K.argsort()[::-1][:top]
    is_known = bool(confidence.is_known(logits_NK)[0])
    return {
        "file": str(file),
        "label": bundle.classes[best[0]] if is_known else UNKNOWN,
        "is_known": is_known,  # a class may be called like the refusal
        "top": [{"label": bundle.classes[k], "score": float(score_K[k])} for k in best],
    }
