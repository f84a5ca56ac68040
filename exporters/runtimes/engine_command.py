"""Engines of runtimes: the line of trtexec that builds one, and how an old one is told apart."""

import shlex

from dfkd_edge.handover.request import Handover

KEPT = (
    "The name of the engine holds a hash of the graph: one of an earlier bundle has another name, "
    "is not loaded, and can be deleted."
)
"""A note for READMEs: people copy a new bundle over the one that is deployed."""
TRTEXEC = "/usr/src/tensorrt/bin/trtexec"


def engine_command(job: Handover, engine: str = "") -> str:
    """Build `job.model`, into its plan where no other file is named.

    The flags are those of TensorRT up to 10, which these runtimes have.
    """
    size = "x".join(map(str, job.input_shape))
    flags = [f"--onnx={job.model}", f"--saveEngine={engine or job.plan}", *_precision(job)]
    if job.is_dynamic:
        pairs = zip(("min", "opt", "max"), job.batch, strict=True)
        flags += [f"--{name}Shapes=image:{number}x{size}" for name, number in pairs]
    if job.target.use_dla:
        flags += ["--useDLACore=0", "--allowGPUFallback"]
    return f"{TRTEXEC} {shlex.join(flags)}"


def _precision(job: Handover) -> list[str]:
    if job.precision == "fp32":
        # golden answers are of FP32; TF32 keeps 10 bits of it, from Ampere on
        return ["--noTF32"] if (job.target.sm or 0) >= 80 else []
    return ["--int8", "--fp16"] if job.precision == "int8" else ["--fp16"]
