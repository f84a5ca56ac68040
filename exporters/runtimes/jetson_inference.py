"""jetson-inference: `imagenet` with a graph that undoes the normalisation which it hard-codes.

The program computes a model of one's own in FP16, which no option changes (imageNet::Create).
"""

from collections.abc import Mapping

from dfkd_edge.handover.request import Handover
from dfkd_edge.handover.wording import readme

from .engine_command import KEPT

FIRST_THRESHOLD = (35, 2)
"""L4T of the first container that was built after `--threshold` came."""


def write(job: Handover) -> Mapping[str, str]:
    """Write labels, the script and the README."""
    notes = [
        (
            "It normalises with ImageNet's mean and deviation; the graph undoes that, and divides "
            "by the temperature."
        ),
        _unknown(job),
        _precision(job),
        KEPT,
        (
            "It resizes by taking one pixel in many: make large pictures smaller before, to about "
            f"{job.side_px} px, or expect less than was measured."
        ),
    ]
    return {
        "labels.txt": "".join(f"{name}\n" for name in job.classes),
        "run.sh": _script(job),
        "README.md": readme(job, "sh run.sh golden/picture.png labelled.png", notes),
    }


def _unknown(job: Handover) -> str:
    if job.release < FIRST_THRESHOLD:
        return (
            "The container of this L4T is older than `--threshold` in `run.sh`, and names a class "
            "whatever it sees; sources from 2022-12-14 on know it, and leave out what is unknown."
        )
    return (
        "A picture whose first class is below `--threshold` in `run.sh` is unknown: `imagenet` "
        "writes no picture for it, and leaves its frame out of a video."
    )


def _precision(job: Handover) -> str:
    note = "`imagenet` has no option for the precision: on every Jetson it computes in FP16"
    if job.target.use_dla:
        note += ", and on the GPU, never on a DLA"
    if job.proven == "fp16":
        return f"{note}."
    return f"{note}, where this bundle was measured in {job.proven.upper()}."


def _script(job: Handover) -> str:
    threshold = job.confidence.reject_threshold
    return f"""#!/bin/sh
# imagenet of jetson-inference, L4T {job.version}: takes pictures, videos, cameras and streams.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if ! command -v imagenet > /dev/null; then
    echo "no imagenet here: run this in a container of jetson-inference" >&2
    exit 4
fi
exec imagenet --model="$here/{job.model}" --labels="$here/labels.txt" \\
    --input_blob=image --output_blob=probabilities --threshold={threshold:.6f} "$@"
"""
