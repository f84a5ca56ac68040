"""ONNX Runtime: which providers with which options, and a short program that classifies pictures.

The TensorRT provider builds a Q/DQ graph only when INT8 is switched on, and needs no calibration
table then (microsoft/onnxruntime#13381). It names an engine by the graph's structure, whatever the
weights are (#6455), so that each graph has a folder of its own.
"""

import json
from collections.abc import Mapping
from typing import Any

from dfkd_edge.handover.request import Handover
from dfkd_edge.handover.wording import BY_BUNDLE, readme

EXAMPLE = '''"""Classifies pictures: python3 classify.py PICTURE..."""

import json
import os
import sys
from pathlib import Path

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

here = Path(__file__).resolve().parent
sys.path.insert(0, str(here.parents[1] / "check.pyz"))  # the bundle's own code

from dfkd_edge.runtime.faults import Fault  # noqa: E402
from dfkd_edge.runtime.preprocess import read_picture  # noqa: E402

if not sys.argv[1:]:
    sys.exit(__doc__)
settings = json.loads((here / "providers.json").read_text(encoding="utf-8"))
labels = (here / "labels.txt").read_text(encoding="utf-8").splitlines()
available = onnxruntime.get_available_providers()
usable = [tuple(given) for given in settings["providers"] if given[0] in available]
for _, options in usable:
    if "trt_engine_cache_path" in options:  # beside this file, wherever the program is started
        options["trt_engine_cache_path"] = str(here / options["trt_engine_cache_path"])
session = onnxruntime.InferenceSession(str(here / settings["model"]), providers=usable)
first, ran = settings["providers"][0][0], session.get_providers()[0]
print(f"runs on {ran}", file=sys.stderr)
if ran != first:
    print(f"warning: {first} is not there: README.md says which wheel has it", file=sys.stderr)
for path in sys.argv[1:]:
    try:
        picture = read_picture(Path(path), settings["size"][0])
    except Fault as fault:
        sys.exit(f"error: {fault}")
    image = np.repeat(picture.astype(settings["dtype"])[None], settings["batch"], 0)
    logits = session.run(["logits"], {"image": image})[0][0] / settings["temperature"]
    probability = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    best = int(probability.argmax())
    is_known = probability[best] >= settings["unknown_below"]
    print(f"{path}: {labels[best] if is_known else 'unknown'} {probability[best]:.4f}")
'''


def write(job: Handover) -> Mapping[str, str]:
    """Write providers.json, the example, labels and README."""
    settings = {
        "model": job.model,
        "dtype": job.feed_dtype,
        "size": [job.side_px, job.side_px],
        "batch": job.batch[0],
        "temperature": job.confidence.temperature,
        "unknown_below": job.confidence.reject_threshold,
        "providers": providers(job),
    }
    notes = [
        BY_BUNDLE,
        (
            "`providers.json` holds what a session takes, the first that is there wins; "
            f"the graph stays where it is: `{job.model}`."
        ),
        _wheel(job),
        "C and C++ take the same graph and options; the wheel has no headers to try a sample with.",
        (
            f"The first run with TensorRT builds an engine, kept here in `{_cache(job)}/`: it "
            "takes a minute. ONNX Runtime does not tell engines of one network with other weights "
            "apart, so the folder is named after the graph; an older one can be deleted."
        ),
    ]
    return {
        "providers.json": json.dumps(settings, indent=2) + "\n",
        "classify.py": EXAMPLE,
        "labels.txt": "".join(f"{name}\n" for name in job.classes),
        "README.md": readme(
            job, "python3 classify.py golden/picture.png", notes[: 4 + _has_gpu(job)]
        ),
    }


def providers(job: Handover) -> list[tuple[str, dict[str, Any]]]:
    """List providers with their options, the fastest first."""
    on_cpu: list[tuple[str, dict[str, Any]]] = [("CPUExecutionProvider", {})]
    if not _has_gpu(job):
        return on_cpu
    tensorrt: dict[str, Any] = {
        "trt_fp16_enable": job.precision != "fp32",
        "trt_int8_enable": job.precision == "int8",
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": _cache(job),
    }
    if job.target.use_dla:
        tensorrt |= {"trt_dla_enable": True, "trt_dla_core": 0}
    return [("TensorrtExecutionProvider", tensorrt), ("CUDAExecutionProvider", {}), *on_cpu]


def _wheel(job: Handover) -> str:
    if not _has_gpu(job):
        return f"`pip install 'onnxruntime<={job.version}' numpy pillow` has all that it needs."
    index = "NVIDIA's index for your JetPack"
    jetpack = job.target.jetpack or ""
    if jetpack.startswith("6.") and jetpack != "6.0":
        index += ", https://pypi.jetson-ai-lab.dev/jp6/cu126"
    also = ", or PyPI's `onnxruntime-gpu`, untried on a Jetson" if jetpack.startswith("7") else ""
    return (
        f"The wheel with TensorRT and CUDA comes from {index}{also}; its version may be older than "
        f"{job.version}, the newest of PyPI's `onnxruntime` for this Python, which computes on the "
        "CPU alone. `classify.py` says on standard error which provider ran, and warns where it is "
        "not the first of `providers.json`."
    )


def _cache(job: Handover) -> str:
    # one level: the provider makes the folder, and not what is above it
    return f"engines-{job.content}"


def _has_gpu(job: Handover) -> bool:
    return job.target.backend == "tensorrt"
