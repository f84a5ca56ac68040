"""DeepStream's element nvinferserver: Triton within the pipeline, with a repository of its own.

It turns pixels into whatever type the input has, so that the graph keeps its bytes; but like
nvinfer it takes every output for probabilities of a further attribute. The plan is TensorRT's: each
Triton that comes with DeepStream has that backend.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from dfkd_edge.handover.parsers import triton_model
from dfkd_edge.handover.request import Handover
from dfkd_edge.handover.wording import readme

from .deepstream import (
    AVERAGES,
    DETECTOR_ID,
    OWN_ID,
    PLAIN,
    PLAYS,
    Scaling,
    labels,
    play_script,
    sinks,
)
from .deepstream_schema import nvinferserver
from .engine_command import KEPT, engine_command
from .triton import NAME, model, output

PRIMARY, SECONDARY = "config_inferserver_primary.txt", "config_inferserver_secondary.txt"
CONFIG = f"models/{NAME}/config.pbtxt"
PARSERS = {PRIMARY: nvinferserver, SECONDARY: nvinferserver, CONFIG: triton_model}
FULL_FRAME = "process_mode: PROCESS_MODE_FULL_FRAME"
ON_OBJECTS = f"process_mode: PROCESS_MODE_CLIP_OBJECTS\n  operate_on_gie_id: {DETECTOR_ID}"


def agree(read: Mapping[str, Any]) -> None:
    """Compare the batch of the element with that of the model.

    The element makes batches of its own number, 1 at least (infer_trtis_context.cpp). Triton
    refuses more than the model's `max_batch_size`, and where that is 0 the batch is a dimension.

    Raises:
        ValueError: they differ.
    """
    own = read[CONFIG].max_batch_size or read[CONFIG].input[0].dims[0]
    for name in (PRIMARY, SECONDARY):
        asked = read[name].infer_config.max_batch_size
        if asked != own:
            raise ValueError(f"max_batch_size of {name} is {asked}, and the model takes {own}")


def write(job: Handover) -> Mapping[str, str]:
    """Write both configurations, the model's own, the labels, the script and the README."""
    return {
        PRIMARY: _config(job, "classifies whole frames", AVERAGES, 1, FULL_FRAME),
        SECONDARY: _config(
            job,
            f"classifies the objects of the detector {DETECTOR_ID}",
            PLAIN,
            OWN_ID,
            ON_OBJECTS,
        ),
        CONFIG: _model(job),
        "labels.txt": labels(job.classes),
        "play.sh": play_script(job, f"nvinferserver config-file-path={PRIMARY}", job.plan),
        "README.md": _readme(job),
    }


def _model(job: Handover) -> str:
    outputs = [output(job, "probabilities", len(job.classes))]
    parts = [
        *model(job, 'platform: "tensorrt_plan"', outputs),
        f'default_model_filename: "{PurePosixPath(job.plan).name}"',
        "instance_group [ { kind: KIND_GPU } ]",
    ]
    return "\n".join(parts) + "\n"


def _config(job: Handover, what: str, scaling: Scaling, unique_id: int, input_control: str) -> str:
    on_gpu = "\n    frame_scaling_hw: FRAME_SCALING_HW_GPU" if scaling.on_gpu else ""
    return f"""# DeepStream {job.version}, nvinferserver: {what}
infer_config {{
  unique_id: {unique_id}
  gpu_ids: [0]
  max_batch_size: {job.batch[2]}
  backend {{
    triton {{
      model_name: "{NAME}"
      version: -1
      model_repo {{
        root: "models"
        strict_model_config: true
      }}
    }}
  }}
  preprocess {{
    network_format: IMAGE_FORMAT_RGB
    tensor_order: TENSOR_ORDER_NHWC
    tensor_name: "image"
    maintain_aspect_ratio: 0
    # {scaling.why}
    frame_scaling_filter: {scaling.number}{on_gpu}
    normalize {{
      scale_factor: 1.0
    }}
  }}
  postprocess {{
    labelfile_path: "labels.txt"
    classification {{
      threshold: {job.confidence.reject_threshold:.6f}
    }}
  }}
}}
input_control {{
  {input_control}
}}
"""


def _readme(job: Handover) -> str:
    commands = f"{engine_command(job)}\n{PLAYS}"
    notes = [
        (
            "trtexec builds the plan once, with the TensorRT that DeepStream has: inside its "
            "container (`-triton` in its name) where you run it in one."
        ),
        sinks(job),
        (
            f"`{PRIMARY}` is for whole frames; `{SECONDARY}` goes behind a detector whose id is "
            f"{DETECTOR_ID}. Paths in both start at their folder."
        ),
        (
            f"Pixels enter as {job.feed_dtype} of 0 to 255, NHWC, RGB, squeezed to the square; the "
            "graph does the rest, the temperature too."
        ),
        "A frame that is not above `threshold` gets no label at all: that is the answer unknown.",
        KEPT,
    ]
    return readme(job, commands, notes)
