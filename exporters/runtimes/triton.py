"""Triton Inference Server: a model repository with the bundle's own graph.

A graph of a static batch has the batch among its dimensions (`max_batch_size: 0`), one of a dynamic
batch has not, and only then may `format` be stated. The TensorRT accelerator of the backend
onnxruntime is in the containers alone: the archives for JetPack 4 and 5 were built without it.
"""

from collections.abc import Mapping, Sequence

from dfkd_edge.handover.parsers import triton_model
from dfkd_edge.handover.request import Handover
from dfkd_edge.handover.wording import BY_BUNDLE, readme

NAME, CONFIG = "student", "student/config.pbtxt"
PARSERS = {CONFIG: triton_model}
FIRST_CONTAINER = (24,)
"""Releases are named by year and month from then on here: containers for the Jetson's GPU."""
FIRST_DLA = (24, 8)
"""Whose backend hands `trt_dla_enable` on; before, the graph runs on the GPU."""
UNPACKED = "/opt/tritonserver"
"""Of archives, which want the folder of backends named (docs/user_guide/jetson.md)."""


def write(job: Handover) -> Mapping[str, str]:
    """Write the repository's texts and the README."""
    return {
        CONFIG: config(job),
        f"{NAME}/labels.txt": "".join(f"{name}\n" for name in job.classes),
        "classify.py": _client(job),
        "README.md": _readme(job),
    }


def config(job: Handover) -> str:
    """Write config.pbtxt."""
    num, on_gpu = len(job.classes), job.target.backend == "tensorrt"
    outputs = [
        output(job, "logits", num),
        output(job, "probabilities", num, "labels.txt"),
        output(job, "embedding", job.embed_dim),
    ]
    parts = [
        *model(job, 'backend: "onnxruntime"', outputs),
        f"instance_group [ {{ kind: {'KIND_GPU' if on_gpu else 'KIND_CPU'} }} ]",
    ]
    if job.is_dynamic:
        parts.append(f"dynamic_batching {{ preferred_batch_size: [ {job.batch[1]} ] }}")
    if on_gpu and job.release >= FIRST_CONTAINER:
        parts.append(_accelerator(job))
    return "\n".join(parts) + "\n"


def model(job: Handover, backend: str, outputs: Sequence[str]) -> list[str]:
    """Write what is alike for every backend: name, batch, input and outputs."""
    dims = ", ".join(map(str, job.dims))
    kind = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}[job.feed_dtype]
    layout = "\n    format: FORMAT_NHWC" if job.is_dynamic else ""
    return [
        f'name: "{NAME}"',
        backend,
        f"max_batch_size: {max_batch(job)}",
        "version_policy { specific { versions: [ 1 ] } }",
        "input [",
        f'  {{\n    name: "image"\n    data_type: {kind}{layout}\n    dims: [ {dims} ]\n  }}\n]',
        "output [",
        ",\n".join(outputs) + "\n]",
    ]


def max_batch(job: Handover) -> int:
    """Return the largest batch that Triton may make; 0 where the batch is a dimension."""
    return job.batch[2] if job.is_dynamic else 0


def own_batch(job: Handover) -> list[int]:
    """Return the batch as a dimension of its own; none where it is dynamic."""
    return [] if job.is_dynamic else [job.batch[2]]


def output(job: Handover, name: str, width: int, labels: str = "") -> str:
    """Write one output."""
    dims = ", ".join(map(str, [*own_batch(job), width]))
    label = f'\n    label_filename: "{labels}"' if labels else ""
    return f'  {{\n    name: "{name}"\n    data_type: TYPE_FP32\n    dims: [ {dims} ]{label}\n  }}'


def engines(job: Handover) -> str:
    """Name the folder of engines on both sides of the container, with which they would go else.

    ONNX Runtime names an engine by the graph's structure alone (microsoft/onnxruntime#6455), and
    makes one folder, not what is above it.
    """
    return f"engines-{job.content}"


def _accelerator(job: Handover) -> str:
    mode = {"fp32": "FP32", "fp16": "FP16", "int8": "INT8"}[job.precision]
    parameters = {
        "precision_mode": mode,
        "trt_engine_cache_enable": "true",
        "trt_engine_cache_path": f"/{engines(job)}",
    }
    if job.target.use_dla and job.release >= FIRST_DLA:
        parameters |= {"trt_dla_enable": "true", "trt_dla_core": "0"}
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
        on_gpu = job.target.backend == "tensorrt"
        gpu = f'--runtime nvidia -v "$PWD/{engines(job)}":/{engines(job)} ' if on_gpu else ""
        command = (
            f'docker run --rm {gpu}--network host -v "$PWD":/models \\\n    {image} \\\n'
            "    tritonserver --model-repository=/models \\\n"
            f"    --model-control-mode=explicit --load-model={NAME}"
        )
    else:
        command = (
            f'{UNPACKED}/bin/tritonserver --model-repository="$PWD" \\\n'
            f"    --backend-directory={UNPACKED}/backends \\\n"
            f"    --model-control-mode=explicit --load-model={NAME}"
        )
    batch = "" if job.is_dynamic else f", a batch of {job.batch[0]}"
    notes = [
        (
            "The first command starts the server, the second sends it a picture, from another "
            "shell: `pip install 'tritonclient[grpc]' pillow`."
        ),
        BY_BUNDLE,
        f"Input `image`: {job.feed_dtype}, NHWC, RGB, 0 to 255, {job.side_px} px square{batch}.",
        "Labels come with the classification extension (`class_count`), as `value:index:label`.",
        (
            f"Divide `logits` by the temperature {job.confidence.temperature:.4g} before a "
            "softmax to have the confidence of `answer.json`; `probabilities` are without it."
        ),
    ]
    if job.release < FIRST_CONTAINER:
        notes.append(
            f"Release {job.version} of github.com/triton-inference-server/server has an archive "
            f"for JetPack: unpack it into `{UNPACKED}`. It needs the libraries that Triton's page "
            "on Jetson lists, computes with CUDA, and finds its backends only where it is told."
        )
    elif job.target.backend == "tensorrt":
        notes.append(
            f"The first start builds an engine, kept in `{engines(job)}/`, which is named after "
            "the graph: it takes minutes. One of an earlier bundle can be deleted."
        )
    return readme(job, f"{command}\npython3 classify.py golden/picture.png", notes)


def _client(job: Handover) -> str:
    batch = job.batch[0]
    return f'''"""Asks Triton at $TRITON (localhost:8001): python3 classify.py PICTURE..."""

import os
import sys
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

here = Path(__file__).resolve().parent
sys.path.insert(0, str(here.parents[1] / "check.pyz"))  # the bundle's own code

from dfkd_edge.runtime.faults import Fault  # noqa: E402
from dfkd_edge.runtime.preprocess import read_picture  # noqa: E402

SIDE, BATCH, DTYPE = {job.side_px}, {batch}, "{job.feed_dtype}"
TEMPERATURE, UNKNOWN_BELOW = {job.confidence.temperature!r}, {job.confidence.reject_threshold!r}

if not sys.argv[1:]:
    sys.exit(__doc__)
labels = (here / "{NAME}" / "labels.txt").read_text(encoding="utf-8").splitlines()
client = triton.InferenceServerClient(os.environ.get("TRITON", "localhost:8001"))
for path in sys.argv[1:]:
    try:
        picture = read_picture(Path(path), SIDE)
    except Fault as fault:
        sys.exit(f"error: {{fault}}")
    image = np.repeat(picture.astype(DTYPE)[None], BATCH, 0)
    kind = {{"uint8": "UINT8", "float32": "FP32"}}[DTYPE]
    asked = triton.InferInput("image", list(image.shape), kind)
    asked.set_data_from_numpy(image)
    wanted = [triton.InferRequestedOutput("logits")]
    try:
        answer = client.infer("{NAME}", [asked], outputs=wanted)
    except InferenceServerException as error:
        sys.exit(f"error: {{error}}: is the server of README.md up?")
    scaled = answer.as_numpy("logits")[0] / TEMPERATURE
    probability = np.exp(scaled - scaled.max()) / np.exp(scaled - scaled.max()).sum()
    best = int(probability.argmax())
    label = labels[best] if probability[best] >= UNKNOWN_BELOW else "unknown"
    print(f"{{path}}: {{label}} {{probability[best]:.4f}}")
'''
