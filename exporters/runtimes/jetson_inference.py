"""jetson-inference: `imagenet` with a graph that undoes the normalisation which it hard-codes."""

from collections.abc import Mapping

from dfkd_edge.handover.request import Handover
from dfkd_edge.handover.wording import readme

from .engine_command import KEPT


def write(job: Handover) -> Mapping[str, str]:
    """Write labels, the script and the README."""
    notes = [
        (
            "It normalises with ImageNet's mean and deviation; the graph undoes that, and divides "
            "by the temperature. `--threshold` in `run.sh` is where an answer becomes unknown."
        ),
        "`--precision=fp16` is faster, and was not measured here; `int8` would calibrate on noise.",
        KEPT,
        "It resizes without antialiasing: large pictures should be made smaller before.",
    ]
    return {
        "labels.txt": "".join(f"{name}\n" for name in job.classes),
        "run.sh": _script(job),
        "README.md": readme(job, "sh run.sh golden/picture.png labelled.png", notes),
    }


def _script(job: Handover) -> str:
    threshold = job.confidence.reject_threshold
    return f"""#!/bin/sh
# imagenet of jetson-inference, L4T {job.version}: takes pictures, videos, cameras and streams.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
exec imagenet --model="$here/{job.model}" --labels="$here/labels.txt" \\
    --input-blob=image --output-blob=probabilities \\
    --precision={job.precision} --threshold={threshold:.6f} "$@"
"""
