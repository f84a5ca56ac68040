"""Pictures and frames through the recommended model of a bundle, with onnxruntime."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfkd_edge.bundles.sources import LIVE, Source, find_sources, sources_of_input
from dfkd_edge.errors import UsageError, faults_as_errors
from dfkd_edge.runtime.confidence import FITTED_ON, UNKNOWN
from dfkd_edge.runtime.faults import Fault, PictureFault

if TYPE_CHECKING:
    from PIL.Image import Image

    from dfkd_edge.bundles.video import AnnotatedVideo

Row = dict[str, Any]
"""An answer: `file`, `label`, `is_known` and `top`; of a video also `frame` and `time_s`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictRequest:
    """Which pictures, with which model, where."""

    images: Sequence[str]
    """Pictures, folders of them, videos, cameras (`0`), URLs of streams, `-` for what comes in."""
    top: int = 3  # Classes to name
    precision: str | None = None  # Of the model; None takes the recommended one
    num_threads: int = 0  # Of the CPU; 0 takes all cores
    device: str = "cpu"  # Or `cuda`, with onnxruntime-gpu
    reject_threshold: float | None = None
    """Score below which the answer is "unknown"; None takes the bundle's own."""
    annotate: Path | None = None  # MP4 of the one video that is given, with its answers


@dataclass
class Tally:
    """How much was done; it grows while rows come."""

    num_images: int = 0
    num_late: int = 0  # Frames that were left out to keep up with a live stream
    began_s: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Since the first picture was asked for."""
        return time.perf_counter() - self.began_s

    @property
    def images_per_s(self) -> float:
        """How many images were read and classified a second."""
        return self.num_images / max(self.seconds, 1e-9)


class Predictor:
    """A model, loaded once, and its answers to one source after the other."""

    def __init__(self, bundle: Path, request: PredictRequest) -> None:
        """Open the bundle and find the pictures.

        Raises:
            UsageError: no bundle, no such model, no picture, no such threshold or device.
            ArtifactError: the bundle is damaged.
            EnvironmentLackingError: the device or PyAV is not there.
        """
        from dfkd_edge.bundles.opening import find_bundle, held_precision, open_bundle

        opened = open_bundle(find_bundle(bundle))  # a wrong path is told of before numpy is loaded
        from dfkd_edge.runtime.caveats import graph_notes
        from dfkd_edge.runtime.session import OnnxSession, SessionRequest

        self._bundle, self._top = opened, request.top
        self._confidence = opened.confidence
        threshold = request.reject_threshold
        if threshold is not None:
            if not 0 <= threshold <= 1:
                raise UsageError("must be 0 to 1", where="reject_threshold", hint="such as 0.6")
            self._confidence = dataclasses.replace(self._confidence, reject_threshold=threshold)
        self.sources, self.skipped = find_sources(request.images)
        precision = request.precision
        name = held_precision(opened, precision) if precision else opened.precision
        with faults_as_errors():
            self._annotated = _annotated(request.annotate, self.sources)
            model = SessionRequest(
                opened.model_path(name),
                name,
                num_threads=request.num_threads,
                full_range=opened.manifest.int8_full_range,
                device=request.device,
            )
            self._session = OnnxSession(model)
        fitted = opened.confidence.reject_threshold
        self.head: dict[str, Any] = {
            "bundle": str(opened.folder),
            "precision": name,
            "graph": model.model.name,
            "status": opened.manifest.status,
            "notes": graph_notes(name, opened.manifest.models),
            "reject_threshold": self._confidence.reject_threshold,
            "threshold_fitted_on": FITTED_ON if fitted and threshold is None else None,
        }
        self.tally = Tally()

    @property
    def num_shown(self) -> int:
        """Classes that an answer names."""
        return min(self._top, len(self._bundle.classes))

    @property
    def is_live(self) -> bool:
        """Whether there may be no end of rows."""
        return any(source.kind in LIVE for source in self.sources)

    def require_end(self) -> None:
        """Refuse what one document cannot hold.

        Raises:
            UsageError: a camera or a stream is among the sources.
        """
        if self.is_live:
            hint = "predict --format jsonl writes each answer at once"
            raise UsageError("one document has no end here", where="camera or stream", hint=hint)

    def rows(self) -> Generator[Row, None, None]:
        """Classify everything; what cannot be read is added to `skipped`, and the rest goes on.

        Raises:
            ArtifactError: a live stream broke.
            EnvironmentLackingError: a camera or a stream cannot be opened; a library is missing.
        """
        self.tally = Tally()
        try:
            with faults_as_errors():
                for source in self.sources:
                    yield from self._of_source(source)
        finally:
            if self._annotated:
                self._annotated.close()

    def _of_source(self, source: Source) -> Iterator[Row]:
        try:
            if source.kind == "input":
                for found in sources_of_input(sys.stdin.buffer):
                    if isinstance(found, str):
                        self.skipped.append(found)
                    else:
                        yield from self._of_source(found)
            elif source.is_video:
                yield from self._of_video(source)
            else:
                from dfkd_edge.runtime.pictures import open_upright

                yield {"file": source.name, **self._answer(open_upright(Path(source.path)))}
        except PictureFault as fault:  # the others are classified all the same
            self.skipped.append(f"{source.name}: {fault.what}")

    def _of_video(self, source: Source) -> Iterator[Row]:
        from dfkd_edge.bundles.video import frames_of

        row: Row = {}
        for frame in frames_of(source):
            if frame.is_late and row:
                self.tally.num_late += 1
            else:
                row = {
                    "file": source.name,
                    "frame": frame.number,
                    "time_s": round(frame.time_s, 3),
                    **self._answer(frame.picture),
                }
                yield row
            if self._annotated:
                self._annotated.write(frame, f"{row['label']} {row['top'][0]['score']:.2f}")

    def _answer(self, picture: Image) -> Row:
        import numpy as np

        from dfkd_edge.runtime.preprocess import resized

        bundle = self._bundle
        logits_NK = self._session.run(resized(picture, bundle.side_px)[None]).logits
        if not np.isfinite(logits_NK).all():
            hint = "dfkd-edge check tells which model of the bundle is right"
            raise Fault("model answers with what is no number", str(bundle.folder), hint)
        score_K = self._confidence.probabilities(logits_NK)[0]
        best = score_K.argsort()[::-1][: self._top]
        is_known = bool(self._confidence.is_known(logits_NK)[0])
        self.tally.num_images += 1
        return {
            "label": bundle.classes[best[0]] if is_known else UNKNOWN,
            "is_known": is_known,  # a class may be called like the refusal
            "top": [{"label": bundle.classes[k], "score": float(score_K[k])} for k in best],
        }


def _annotated(path: Path | None, sources: Sequence[Source]) -> AnnotatedVideo | None:
    if path is None:
        return None
    from dfkd_edge.bundles.video import AnnotatedVideo

    if len(sources) != 1 or not sources[0].is_video:
        what = "draws the answers into one video, camera or stream"
        raise UsageError(what, where="--annotate", hint="name one and nothing else")
    return AnnotatedVideo(path)


def classify_pictures(bundle: Path, request: PredictRequest) -> dict[str, Any]:
    """Classify pictures with a model of a bundle, or of a run with one.

    Returns:
        The document of `predict --json`; `skipped` says what could not be read and why.

    Raises:
        DfkdEdgeError: as Predictor and its rows.
    """
    predictor = Predictor(bundle, request)
    predictor.require_end()
    rows = list(predictor.rows())
    return document_of(predictor, rows)


def document_of(predictor: Predictor, rows: Sequence[Row]) -> dict[str, Any]:
    """Put answers into the document of `predict --json`."""
    tally = predictor.tally
    speed = {"seconds": round(tally.seconds, 3), "images_per_s": round(tally.images_per_s, 2)}
    return {**predictor.head, "pictures": list(rows), "skipped": predictor.skipped, **speed}
