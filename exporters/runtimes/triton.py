"""Triton Inference Server: a model repository with the bundle's own graph.

A graph of a static batch has the batch among its dimensions (`max_batch_size: 0`), one of a dynamic
batch has not, and only then may `format` be stated. The TensorRT accelerator of the backend
onnxruntime is in the containers alone: the archives for JetPack 4 and 5 were built without it.
"""

from collections.abc import Mapping

from dfkd_edge.handover.request import Handover
from dfkd_edge.handover.wording import readme

NAME = "student"
FIRST_CONTAINER = (24,)
"""Releases are named by year and month from then on here: containers for the Jetson's GPU."""


def write(job: Handover) -> Mapping[str, str]:
    """Write the repository's texts and the README."""
    return {
        f"{NAME}/config.pbtxt": config(job),
        f"{NAME}/labels.txt": "".join(f"{name}\n" for name in job.classes),
        "README.md": _readme(job),
    }


def config(job: Handover) -> str:
    """Write config.pbtxt."""
    num, batch = len(job.classes), job.batch[2]
    own = [] if job.is_dynamic else [batch]
    dims = ", ".join(map(str, [*own, *job.input_shape]))
    kind = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}[job.feed_dtype]
    layout = "\n    format: FORMAT_NHWC" if job.is_dynamic else ""
    on_gpu = job.target.backend == "tensorrt"
    parts = [
        f'name: "{NAME}"',
        'backend: "onnxruntime"',
        f"max_batch_size: {batch if job.is_dynamic else 0}",
        "input [",
        f'  {{\n    name: "image"\n    data_type: {kind}{layout}\n    dims: [ {dims} ]\n  }}\n]',
        "output [",
        f"{_output('logits', own, num)},",
        f"{_output('probabilities', own, num, 'labels.txt')},",
        f"{_output('embedding', own, job.embed_dim)}\n]",
        f"instance_group [ {{ kind: {'KIND_GPU' if on_gpu else 'KIND_CPU'} }} ]",
    ]
    if job.is_dynamic:
        parts.append(f"dynamic_batching {{ preferred_batch_size: [ {job.batch[1]} ] }}")
    if on_gpu and job.release >= FIRST_CONTAINER:
        parts.append(_accelerator(job))
    return "\n".join(parts) + "\n"


def _output(name: str, own: list[int], width: int, labels: str = "") -> str:
    dims = ", ".join(map(str, [*own, width]))
    label = f'\n    label_filename: "{labels}"' if labels else ""
    return f'  {{\n    name: "{name}"\n    data_type: TYPE_FP32\n    dims: [ {dims} ]{label}\n  }}'


def _accelerator(job: Handover) -> str:
    mode = {"fp32": "FP32", "fp16": "FP16", "int8": "INT8"}[job.precision]
    parameters = {"precision_mode": mode, "trt_engine_cache_enable": "true"}
    lines = [
        f'      parameters {{ key: "{key}" value: "{value}" }}' for key, value in parameters.items()
    ]
    return "\n".join(
        [
            "optimization {",
            "  execution_accelerators {",
            '    gpu_execution_accelerator [ {\n      name: "tensorrt"',
            *lines,
            "    } ]",
            "  }",
            "}",
        ]
    )


def _readme(job: Handover) -> str:
    if job.release >= FIRST_CONTAINER:
        is_jetson = job.target.jetpack is not None and job.target.jetpack < "7"
        image = f"nvcr.io/nvidia/tritonserver:{job.version}-py3{'-igpu' if is_jetson else ''}"
        gpu = "--runtime nvidia " if job.target.backend == "tensorrt" else ""
        command = (
            f'docker run --rm {gpu}--network host -v "$PWD":/models {image} \\\n'
            "    tritonserver --model-repository=/models \\\n"
            f"    --model-control-mode=explicit --load-model={NAME}"
        )
    else:
        command = (
            'tritonserver --model-repository="$PWD" --model-control-mode=explicit '
            f"--load-model={NAME}"
        )
    batch = "" if job.is_dynamic else f", a batch of {job.batch[0]}"
    notes = [
        f"Input `image`: {job.feed_dtype}, NHWC, RGB, 0 to 255, {job.side_px} px square{batch}.",
        "Labels come with the classification extension (`class_count`), as `value:index:label`.",
        (
            f"Divide `logits` by the temperature {job.confidence.temperature:.4g} before a "
            "softmax to have the confidence of `answer.json`; `probabilities` are without it."
        ),
    ]
    return readme(job, command, notes)
