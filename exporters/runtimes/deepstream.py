"""DeepStream's element nvinfer: on the whole frame, and on the objects of a detector.

Rules are those of `gst-nvinfer` and `nvdsinfer` at v9.1.0 of NVIDIA/DeepStream: it writes float32
planes, takes every output of the engine for probabilities of a further attribute, and splits a line
of labels at semicolons. A key that it does not know is only logged.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from dfkd_edge.handover.request import Handover
from dfkd_edge.handover.wording import readme

from .deepstream_schema import nvinfer
from .engine_command import KEPT, engine_command

FIRST_STRONGLY_TYPED = (9, 0)
"""Whose nvinfer builds Q/DQ graphs; before, it asks for a calibration file and falls back."""
NETWORK_MODES = {"fp32": 0, "int8": 1, "fp16": 2}
TYPED = "network-mode=0 with strongly-typed=1: the graph's Q/DQ decide, INT8"
"""A mode of 1 without a calibration file is taken for 2: TensorRT refuses its flag beside a typed
graph, and the engine is named after 2, so that it is not found again (TrtModelBuilder)."""
PRIMARY, SECONDARY = "config_infer_primary.txt", "config_infer_secondary.txt"
DETECTOR_ID, OWN_ID = 1, 2
PARSERS = {PRIMARY: nvinfer, SECONDARY: nvinfer}
PLAYS = """sh play.sh VIDEO.mp4
sh play.sh rtsp://CAMERA/STREAM
sh play.sh /dev/video0  # a USB camera; csi:0 is one on the CSI port"""
NO_ENCODER = "orin-nano"
"""How modules begin that have no hardware to encode video (NVENC)."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """A filter of NvBufSurfTransform, as nvinfer and nvinferserver number them."""

    number: int
    on_gpu: bool  # What a number means differs between GPU and VIC
    why: str


AVERAGES = Scaling(3, True, "averages on the GPU, as in training: frames exceed the network")
PLAIN = Scaling(1, False, "bilinear: objects may be smaller than the network, and 3 only shrinks")


def write(job: Handover) -> Mapping[str, str]:
    """Write both configurations, the labels and the README."""
    full_frame = {"process-mode": 1, "gie-unique-id": 1}
    on_objects = {"process-mode": 2, "gie-unique-id": OWN_ID, "operate-on-gie-id": DETECTOR_ID}
    return {
        PRIMARY: _config(job, "classifies whole frames", AVERAGES, full_frame),
        SECONDARY: _config(job, "classifies the objects of the detector 1", PLAIN, on_objects),
        "labels.txt": labels(job.classes),
        "play.sh": play_script(
            job,
            f"nvinfer config-file-path={PRIMARY}",
            _engine(job) if needs_engine(job) else "",
        ),
        "README.md": _readme(job),
    }


def sinks(job: Handover) -> str:
    """Say where the pictures of `play.sh` go."""
    why = "; this module has no hardware encoder, so the CPU encodes"
    return (
        "`play.sh` ends in `nv3dsink`; name another sink behind the source, `fakesink` headless, "
        f"or `'{_file_sink(job)}'`{why if 'x264enc' in _file_sink(job) else ''}."
    )


def labels(classes: tuple[str, ...]) -> str:
    """Write the label file: one line an output of the engine, of which there is one."""
    return ";".join(classes) + "\n"


def needs_engine(job: Handover) -> bool:
    """Whether nvinfer cannot build the graph itself, so that trtexec must."""
    return job.precision == "int8" and not _is_typed(job)


def _is_typed(job: Handover) -> bool:
    """Whether nvinfer builds a Q/DQ graph as it says, which no DLA takes."""
    is_there = job.release[:2] >= FIRST_STRONGLY_TYPED and not job.target.use_dla
    return job.precision == "int8" and is_there


def _config(job: Handover, what: str, scaling: Scaling, mode: Mapping[str, int]) -> str:
    number, on_gpu = scaling.number, {"scaling-compute-hw": 1} if scaling.on_gpu else {}
    keys = {**_properties(job), "scaling-filter": number, **on_gpu, **mode}
    lines = [f"# DeepStream {job.version}, nvinfer: {what}"]
    if needs_engine(job):
        lines += [
            "# no onnx-file: this nvinfer would build it in another precision, and only log so;",
            f"# trtexec builds the engine once: {engine_command(job, _engine(job))}",
        ]
    if _is_typed(job):
        lines.append(f"# {TYPED}")
    lines += [f"# scaling-filter={number}: {scaling.why}", "[property]"]
    return "\n".join([*lines, *(f"{key}={value}" for key, value in keys.items())]) + "\n"


def _properties(job: Handover) -> dict[str, object]:
    # without the graph a missing engine is an error, with it a silent build in another precision
    graph = {} if needs_engine(job) else {"onnx-file": job.model}
    side = job.side_px
    return {
        "gpu-id": 0,
        **graph,
        "model-engine-file": _engine(job),
        "labelfile-path": "labels.txt",
        "batch-size": job.batch[2],
        "network-mode": NETWORK_MODES[_mode(job)],
        **({"strongly-typed": 1} if _is_typed(job) else {}),
        **({"enable-dla": 1, "use-dla-core": 0} if job.target.use_dla else {}),
        "network-type": 1,
        "infer-dims": f"3;{side};{side}",
        "output-blob-names": "probabilities",
        "model-color-format": 0,
        "net-scale-factor": 1,
        "maintain-aspect-ratio": 0,
        "classifier-threshold": f"{job.confidence.reject_threshold:.6f}",
    }


def play_script(job: Handover, element: str, engine: str = "") -> str:
    """Write the script that plays a file, a stream or a camera through one element.

    Args:
        job: what is handed over.
        element: with its configuration.
        engine: that trtexec must have built; empty where the element builds it.
    """
    return f"""#!/bin/sh
# Plays a source and draws each answer into it: sh play.sh SOURCE [SINK], where SOURCE is
# a file, also of a picture, a stream (rtsp://CAMERA/STREAM), a USB camera (/dev/video0) or a CSI
# camera (csi:0)
set -eu
source=${{1:?usage: sh play.sh VIDEO.mp4|rtsp://CAMERA/STREAM|/dev/video0|csi:0 [SINK]}}
sink=${{2:-nv3dsink}}
in_nvmm='video/x-raw(memory:NVMM),format=NV12'
case "$source" in
    csi:*) live=1; set -- nvarguscamerasrc "sensor-id=${{source#csi:}}" ;;
    /dev/*) live=1; set -- v4l2src "device=$source" ! videoconvert ;;
    *://*) live=1; set -- uridecodebin "uri=$source" ;;
    *) live=0; file=$(realpath -e "$source"); set -- uridecodebin "uri=file://$file" ;;
esac
case "$source" in
    *.png) set -- "$@" ! videoconvert ;;  # from RGB, which not every nvvideoconvert takes
esac
cd "$(dirname "$0")"
{_engine_guard(engine)}# a sink may be several elements, such as
# '{_file_sink(job)}'
exec gst-launch-1.0 -e "$@" ! nvvideoconvert ! "$in_nvmm" ! mux.sink_0 \\
    nvstreammux name=mux batch-size=1 width=1280 height=720 live-source=$live \\
    batched-push-timeout=40000 ! \\
    {element} ! \\
    nvvideoconvert ! nvdsosd ! $sink
"""


def _engine_guard(engine: str) -> str:
    if not engine:
        return ""
    return f"""if [ ! -f {engine} ]; then
    echo "no {engine}: run the line of trtexec in README.md first" >&2
    exit 4
fi
"""


def _file_sink(job: Handover) -> str:
    encoder = "nvvideoconvert ! nvv4l2h264enc"
    if job.target.module.startswith(NO_ENCODER):  # on the CPU, which cannot read NVMM memory
        encoder = "nvvideoconvert ! video/x-raw,format=I420 ! x264enc tune=zerolatency"
    return f"{encoder} ! h264parse ! qtmux ! filesink location=out.mp4"


def _mode(job: Handover) -> str:
    return "fp32" if _is_typed(job) else job.precision


def _engine(job: Handover) -> str:
    # as nvinfer names what it builds: any other name is built again at each start
    device = "dla0" if job.target.use_dla else "gpu0"
    return f"{job.model}_b{job.batch[2]}_{device}_{_mode(job)}.engine"


def _readme(job: Handover) -> str:
    play = PLAYS
    notes = [
        sinks(job),
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
    if _is_typed(job):
        notes.append(
            "`network-mode=0` with `strongly-typed=1` lets the graph's Q/DQ decide: nvinfer "
            "computes INT8, and calls the engine `fp32`."
        )
    if needs_engine(job):
        where = "for the DLA" if job.release[:2] >= FIRST_STRONGLY_TYPED else "in this version"
        notes.append(
            f"nvinfer builds no Q/DQ graph {where}, so trtexec does, once; `onnx-file` is left "
            "out, since nvinfer would build from it in another precision."
        )
        play = f"{engine_command(job, _engine(job))}\n{play}"
    return readme(job, play, notes)
