"""DeepStream's element nvinfer: on the whole frame, and on the objects of a detector.

Rules are those of `gst-nvinfer` and `nvdsinfer` at v9.1.0 of NVIDIA/DeepStream: it writes float32
planes, takes every output of the engine for probabilities of a further attribute, and splits a line
of labels at semicolons. A key that it does not know is only logged.
"""

import shlex
from collections.abc import Mapping

from dfkd_edge.handover.request import Handover
from dfkd_edge.handover.wording import readme

FIRST_STRONGLY_TYPED = (9, 0)
"""Whose nvinfer builds Q/DQ graphs; before, it asks for a calibration file and falls back."""
NETWORK_MODES = {"fp32": 0, "int8": 1, "fp16": 2}
PRIMARY, SECONDARY = "config_infer_primary.txt", "config_infer_secondary.txt"
DETECTOR_ID, OWN_ID = 1, 2


def write(job: Handover) -> Mapping[str, str]:
    """Write both configurations, the labels and the README."""
    full_frame = {"process-mode": 1, "gie-unique-id": 1}
    on_objects = {"process-mode": 2, "gie-unique-id": OWN_ID, "operate-on-gie-id": DETECTOR_ID}
    return {
        PRIMARY: _config(job, "classifies whole frames", full_frame),
        SECONDARY: _config(job, "classifies the objects of the detector 1", on_objects),
        "labels.txt": labels(job.classes),
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
    batch = job.batch[2]
    engine = f"model.onnx_b{batch}_gpu0_{job.precision}.engine"  # as nvinfer names what it builds
    # without the graph a missing engine is an error, with it a silent build in another precision
    graph = {} if needs_engine(job) else {"onnx-file": job.model}
    is_typed = job.precision == "int8" and job.release[:2] >= FIRST_STRONGLY_TYPED
    side = job.side_px
    return {
        "gpu-id": 0,
        **graph,
        "model-engine-file": engine,
        "labelfile-path": "labels.txt",
        "batch-size": batch,
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


def _readme(job: Handover) -> str:
    play = (
        "gst-launch-1.0 uridecodebin uri=rtsp://CAMERA/STREAM ! mux.sink_0 \\\n"
        "    nvstreammux name=mux batch-size=1 width=1280 height=720 ! \\\n"
        f"    nvinfer config-file-path={PRIMARY} ! nvvideoconvert ! nvdsosd ! fakesink"
    )
    notes = [
        "`uri=file:///PATH.mp4` plays a file; another sink than `fakesink` shows it.",
        f"`{SECONDARY}` goes behind a detector whose `gie-unique-id` is {DETECTOR_ID}.",
        (
            "Pixels enter as 0 to 255 (`net-scale-factor=1`), RGB, squeezed to the square; the "
            "graph does the rest, the temperature too."
        ),
        "A frame below `classifier-threshold` gets no label at all: that is the answer unknown.",
    ]
    if needs_engine(job):
        notes.append("nvinfer of this version builds no Q/DQ graph, so trtexec does, once.")
        play = f"{_trtexec(job)}\n{play}"
    return readme(job, play, notes)


def _trtexec(job: Handover) -> str:
    shapes = []
    if job.is_dynamic:
        size = f"3x{job.side_px}x{job.side_px}"
        pairs = zip(("min", "opt", "max"), job.batch, strict=True)
        shapes = [f"--{name}Shapes=image:{number}x{size}" for name, number in pairs]
    engine = f"model.onnx_b{job.batch[2]}_gpu0_{job.precision}.engine"
    flags = [f"--onnx={job.model}", f"--saveEngine={engine}", "--int8", "--fp16", *shapes]
    return f"/usr/src/tensorrt/bin/trtexec {shlex.join(flags)}"
