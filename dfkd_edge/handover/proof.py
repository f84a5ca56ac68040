"""A variant must answer as the bundle's own graph does, here, on the bundle's golden images.

Shape suffixes: N images, S side, C = 3 channels (RGB), K classes.
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfkd_edge.artifacts import Bytes, Floats
from dfkd_edge.errors import ConversionError
from dfkd_edge.handover.request import Handover, as_handed
from dfkd_edge.runtime.confidence import Confidence
from dfkd_edge.runtime.device import cpu_saturates
from dfkd_edge.runtime.session import open_graph
from dfkd_edge.target_profiles.profile import Precision

MOST_DIFFERENCE = 1e-4
"""Of a probability: the same weights in the same float arithmetic, one rounding more."""
VALUES = {
    "bundle": "0 to 255",
    "pixels": "0 to 255",
    "planes": "0 to 255",
    "imagenet": "(x / 255 - mean) / deviation, those of ImageNet",
}


@dataclass(frozen=True, slots=True)
class Answers:
    """What the bundle's own graph says of the golden images."""

    logits_NK: Floats
    probability_NK: NDArray[np.float64]  # Of the logits over the temperature

    @property
    def surest(self) -> int:
        """The image that rounding is least likely to turn."""
        return int(self.probability_NK.max(axis=1).argmax())


def own_answers(
    model: Path, precision: Precision, image_NSSC: Bytes, dtype: str, confidence: Confidence
) -> Answers:
    """Run the bundle's own graph."""
    fed = as_handed(image_NSSC, "bundle", dtype)
    logits_NK = _run(model, precision, fed, "logits")
    return Answers(logits_NK, confidence.probabilities(logits_NK))


def require_equal(variant: Path, job: Handover, image_NSSC: Bytes, own: Answers) -> None:
    """Run a variant and compare.

    Raises:
        ConversionError: it answers otherwise.
    """
    handed = as_handed(image_NSSC, job.profile.feed, job.feed_dtype)
    seen_NK = _run(variant, job.graph, handed, "probabilities")
    difference = float(np.abs(seen_NK - own.probability_NK).max())
    same_first = bool((seen_NK.argmax(1) == own.probability_NK.argmax(1)).all())
    # one step of INT8 is more than the rounding of a float, so there the first class counts
    if not same_first or (job.graph != "int8" and difference > MOST_DIFFERENCE):
        raise ConversionError(
            f"graph for {job.profile.name} differs from the bundle's own by {difference:.2g}",
            where=str(variant),
            hint="report it with the bundle; leave this runtime out until then",
        )


def golden_files(job: Handover, image_NSSC: Bytes, own: Answers) -> dict[str, bytes]:
    """Pack the picture, the tensor that the runtime must make of it, and the answer."""
    from PIL import Image

    chosen = own.surest
    picture = io.BytesIO()
    Image.fromarray(image_NSSC[chosen]).save(picture, "PNG")
    one = as_handed(image_NSSC[chosen : chosen + 1], job.profile.feed, job.feed_dtype)
    handed = np.repeat(one, job.batch[0], 0)  # a static batch is filled
    document = {
        "picture": "picture.png",
        "input": {
            "file": "input.bin",
            "dtype": job.feed_dtype,
            "shape": list(handed.shape),
            "layout": job.layout,
            "channels": "RGB",
            "values": VALUES[job.profile.feed],
        },
        "precision": job.precision,
        "mends": {mistake: job.filled(mend) for mistake, mend in job.profile.mends.items()},
        "answer": _answer(job, own, chosen),
    }
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    files = {"picture.png": picture.getvalue(), "input.bin": handed.tobytes()}
    return {**files, "answer.json": text.encode()}


def _answer(job: Handover, own: Answers, chosen: int) -> dict[str, Any]:
    probability_K = own.probability_NK[chosen]
    first = int(probability_K.argmax())
    answer: dict[str, Any] = {
        "index": first,
        "label": job.classes[first],
        "probability": round(float(probability_K[first]), 6),
        "unknown_below": job.confidence.reject_threshold,
    }
    if job.profile.feed == "bundle":
        answer["temperature"] = job.confidence.temperature
        answer["logits"] = [round(float(value), 4) for value in own.logits_NK[chosen]]
    return answer


def _run(path: Path, precision: Precision, fed: NDArray[Any], output: str) -> Floats:
    in_float = precision == "int8" and cpu_saturates()
    session = open_graph(str(path), 0, in_float)
    first = session.get_inputs()[0].shape[0]
    size = first if isinstance(first, int) else len(fed)
    parts = []
    for start in range(0, len(fed), size):
        part = fed[start : start + size]
        filled = np.concatenate([part, np.repeat(part[-1:], size - len(part), 0)])
        parts.append(session.run([output], {"image": filled})[0][: len(part)])
    answer_NK: Floats = np.concatenate(parts)
    return answer_NK
