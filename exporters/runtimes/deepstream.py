"""DeepStream's element nvinfer: on the whole frame, and on the objects of a detector.

Rules are those of `gst-nvinfer` and `nvdsinfer` at v9.1.0 of NVIDIA/DeepStream: it writes float32
planes, takes every output of the engine for probabilities of a further attribute, and splits a line
of labels at semicolons. A key that it does not know is only logged.
"""

from collections.abc import Mapping

from dfkd_edge.handover.request import Handover
from dfkd_edge.handover.wording import readme

from .deepstream_schema import nvinfer
from .engine_command import KEPT, engine_command

FIRST_STRONGLY_TYPED = (9, 0)
"""Whose nvinfer builds Q/DQ graphs; before, it asks for a calibration file and falls back."""
NETWORK_MODES = {"fp32": 0, "int8": 1, "fp16": 2}
PRIMARY, SECONDARY = "config_infer_primary.txt", "config_infer_secondary.txt"
DETECTOR_ID, OWN_ID = 1, 2
PARSERS = {PRIMARY: nvinfer, SECONDARY: nvinfer}


def write(job: Handover) -> Mapping[str, str]:
    """Write both configurations, the labels and the README."""
    full_frame = {"process-mode": 1, "gie-unique-id": 1}
    on_objects = {"process-mode": 2, "gie-unique-id": OWN_ID, "operate-on-gie-id": DETECTOR_ID}
    return {
        PRIMARY: _config(job, "classifies whole frames", full_frame),
        SECONDARY: _config(job, "classifies the objects of the detector 1", on_objects),
        "labels.txt": labels(job.classes),
        "play.sh": play_script(f"nvinfer config-file-path={PRIMARY}"),
        "README.md": _readme(job),
    }


def labels(classes: tuple[str, ...]) -> str:
    """Write the label file: one line an output of the engine, of which there is one."""
    return ";".join(classes) + "\n"


def needs_engine(job: Handover) -> bool:
    """Whether this version cannot build the graph itself, so that trtexec must."""
    return job.precision == "int8" and job.release[:2] < FIRST_STRONGLY_TYPED


def _config(job: Handover, what: str, mode: Mapping[str, int]) -> str:
    keys = {**_properties(job), **mode}
    lines = [f"# DeepStream {job.version}, nvinfer: {what}", "[property]"]
    return "\n".join([*lines, *(f"{key}={value}" for key, value in keys.items())]) + "\n"


def _properties(job: Handover) -> dict[str, object]:
    # without the graph a missing engine is an error, with it a silent build in another precision
    graph = {} if needs_engine(job) else {"onnx-file": job.model}
    is_typed = job.precision == "int8" and job.release[:2] >= FIRST_STRONGLY_TYPED
    side = job.side_px
    return {
        "gpu-id": 0,
        **graph,
        "model-engine-file": _engine(job),
        "labelfile-path": "labels.txt",
        "batch-size": job.batch[2],
        "network-mode": NETWORK_MODES[job.precision],
        **({"strongly-typed": 1} if is_typed else {}),
        **({"enable-dla": 1, "use-dla-core": 0} if job.target.use_dla else {}),
        "network-type": 1,
        "infer-dims": f"3;{side};{side}",
        "output-blob-names": "probabilities",
        "model-color-format": 0,
        "net-scale-factor": 1,
        "maintain-aspect-ratio": 0,
        "scaling-filter": 1,
        "classifier-threshold": f"{job.confidence.reject_threshold:.6f}",
    }


def play_script(element: str) -> str:
    """Write the script that plays a file or a stream through one element."""
    return f"""#!/bin/sh
# Plays a file or a stream and draws each answer into it: sh play.sh VIDEO|URI [SINK]
set -eu
source=${{1:?usage: sh play.sh VIDEO.mp4|rtsp://CAMERA/STREAM [SINK]}}
case "$source" in
    *://*) uri=$source live=1 ;;
    *) uri="file://$(realpath -e "$source")" live=0 ;;
esac
cd "$(dirname "$0")"
# a sink may be several elements, such as
# 'nvvideoconvert ! nvv4l2h264enc ! h264parse ! qtmux ! filesink location=out.mp4'
exec gst-launch-1.0 -e uridecodebin uri="$uri" ! mux.sink_0 \\
    nvstreammux name=mux batch-size=1 width=1280 height=720 live-source=$live \\
    batched-push-timeout=40000 ! \\
    {element} ! \\
    nvvideoconvert ! nvdsosd ! ${{2:-nv3dsink}}
"""


def _engine(job: Handover) -> str:
    # as nvinfer names what it builds, after the graph, whatever the configuration says
    return f"{job.model}_b{job.batch[2]}_gpu0_{job.precision}.engine"


def _readme(job: Handover) -> str:
    play = "sh play.sh VIDEO.mp4\nsh play.sh rtsp://CAMERA/STREAM"
    notes = [
        "`play.sh` ends in `nv3dsink`; name another sink behind the source, `fakesink` headless.",
        (
            f"`{PRIMARY}` is for whole frames; `{SECONDARY}` goes behind a detector whose "
            f"`gie-unique-id` is {DETECTOR_ID}."
        ),
        (
            "Pixels enter as 0 to 255 (`net-scale-factor=1`), RGB, squeezed to the square; the "
            "graph does the rest, the temperature too."
        ),
        "A frame below `classifier-threshold` gets no label at all: that is the answer unknown.",
        KEPT,
    ]
    if needs_engine(job):
        notes.append("nvinfer of this version builds no Q/DQ graph, so trtexec does, once.")
        play = f"{engine_command(job, _engine(job))}\n{play}"
    return readme(job, play, notes)
