"""Pictures through the recommended model of a bundle, with onnxruntime."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfkd_edge.errors import UsageError, faults_as_errors
from dfkd_edge.runtime.confidence import FITTED_ON, UNKNOWN
from dfkd_edge.runtime.faults import PictureFault

if TYPE_CHECKING:
    from dfkd_edge.runtime.bundle_files import Bundle
    from dfkd_edge.runtime.confidence import Confidence
    from dfkd_edge.runtime.session import OnnxSession


def classify_pictures(
    bundle: Path,
    images: list[Path],
    top: int,
    precision: str | None,
    threads: int,
    reject_threshold: float | None,
) -> dict[str, Any]:
    """Classify pictures with a model of a bundle.

    Args:
        bundle: a bundle, or a run with one.
        images: pictures and folders of pictures.
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
    from dfkd_edge.bundles.opening import find_bundle, held_precision, open_bundle

    opened = open_bundle(find_bundle(bundle))  # a wrong path is told of before numpy is loaded
    from dfkd_edge.runtime.caveats import graph_notes
    from dfkd_edge.runtime.session import OnnxSession, SessionRequest

    confidence = opened.confidence
    if reject_threshold is not None:
        if not 0 <= reject_threshold <= 1:
            raise UsageError("must be 0 to 1", where="reject_threshold", hint="such as 0.6")
        confidence = dataclasses.replace(confidence, reject_threshold=reject_threshold)
    files, skipped = _pictures(images)
    with faults_as_errors():
        name = held_precision(opened, precision) if precision else opened.precision
        path, in_full = opened.model_path(name), opened.manifest.int8_full_range
        session = OnnxSession(SessionRequest(path, name, num_threads=threads, full_range=in_full))
        rows = []
        for file in files:
            try:
                rows.append(_classify(session, opened, confidence, file, top))
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


def _pictures(paths: list[Path]) -> tuple[list[Path], list[str]]:
    """Expand folders, and name what is not there."""
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
        "top": [{"label": bundle.classes[k], "score": float(score_K[k])} for k in best],
    }
