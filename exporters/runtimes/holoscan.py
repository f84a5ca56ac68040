"""Holoscan SDK: an application of five operators around InferenceOp, and its parameters.

FormatConverterOp gives bytes of RGB, squeezed to the square. InferenceOp tells outputs apart by
their place alone, so that the graph has one; its builder sets no INT8, so the engine is trtexec's.
"""

from collections.abc import Mapping

from dfkd_edge.handover.request import Handover
from dfkd_edge.handover.wording import BY_BUNDLE, readme

from .engine_command import KEPT, engine_command

FIRST_CUDA_IN_NAME = (3, 7)
"""Containers are named after CUDA from then on."""
APPLICATION = '''"""Classifies a picture, or a camera: python3 classify.py PICTURE | /dev/video0."""

import sys
from pathlib import Path

import numpy as np
from holoscan.conditions import CountCondition
from holoscan.core import Application, Operator, OperatorSpec
from holoscan.operators import FormatConverterOp, InferenceOp, V4L2VideoCaptureOp
from holoscan.resources import UnboundedAllocator

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "check.pyz"))  # the bundle's own code

from dfkd_edge.runtime.faults import Fault  # noqa: E402
from dfkd_edge.runtime.preprocess import read_picture  # noqa: E402


class PictureOp(Operator):
    """Emits one picture as RGB bytes [side, side, 3], as `predict` reads it."""

    def __init__(self, fragment, *args, path, side, **kwargs):
        self.path, self.side = path, side
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec):
        spec.output("signal")

    def compute(self, op_input, op_output, context):
        try:
            picture = read_picture(Path(self.path), self.side)
        except Fault as fault:
            sys.exit(f"error: {fault}")
        op_output.emit({"": picture}, "signal")


class AnswerOp(Operator):
    """Prints the class, or unknown."""

    def __init__(self, fragment, *args, unknown_below, **kwargs):
        self.labels = (HERE / "labels.txt").read_text(encoding="utf-8").splitlines()
        self.unknown_below = unknown_below
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec):
        spec.input("answer")

    def compute(self, op_input, op_output, context):
        probability = np.asarray(op_input.receive("answer")["probabilities"]).ravel()
        best = int(probability.argmax())
        label = self.labels[best] if probability[best] >= self.unknown_below else "unknown"
        print(f"{label} {probability[best]:.4f}", flush=True)


class Classifier(Application):
    """source -> converter -> inference -> answer."""

    def __init__(self, source):
        super().__init__()
        self.source = source

    def compose(self):
        pool = UnboundedAllocator(self, name="pool")
        is_camera = self.source.startswith("/dev/")
        if is_camera:
            source = V4L2VideoCaptureOp(
                self, name="camera", allocator=pool, device=self.source, pass_through=False
            )
        else:
            once = CountCondition(self, 1)
            side = self.kwargs("converter")["resize_width"]
            source = PictureOp(self, once, name="picture", path=self.source, side=side)
        given = self.kwargs("converter") | self.kwargs("camera" if is_camera else "picture")
        converter = FormatConverterOp(self, name="converter", pool=pool, **given)
        inference = InferenceOp(
            self,
            name="inference",
            allocator=pool,
            model_path_map={"student": str(HERE / self.kwargs("engine")["file"])},
            **self.kwargs("inference"),
        )
        answer = AnswerOp(self, name="answer", **self.kwargs("answer"))
        self.add_flow(source, converter, {("signal", "source_video")})
        self.add_flow(converter, inference, {("tensor", "receivers")})
        self.add_flow(inference, answer, {("transmitter", "answer")})


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    application = Classifier(sys.argv[1])
    application.config(str(HERE / "app.yaml"))
    application.run()


if __name__ == "__main__":
    main()
'''


def write(job: Handover) -> Mapping[str, str]:
    """Write the application, its parameters, the labels and the README."""
    notes = [
        BY_BUNDLE,
        "trtexec builds the engine once, with the TensorRT that the application runs on.",
        "Pixels enter as `image`: bytes of RGB, NHWC, squeezed to the square by the converter.",
        "`app.yaml` holds every parameter, the threshold of unknown too.",
        KEPT,
        f"In a container: `nvcr.io/nvidia/clara-holoscan/holoscan:{_container(job)}`.",
    ]
    commands = f"{engine_command(job)}\npython3 classify.py golden/picture.png"
    return {
        "app.yaml": _parameters(job),
        "classify.py": APPLICATION,
        "labels.txt": "".join(f"{name}\n" for name in job.classes),
        "README.md": readme(job, commands, notes),
    }


def _parameters(job: Handover) -> str:
    return f"""%YAML 1.2
# Holoscan SDK {job.version}: parameters of the operators in classify.py
---
converter:  # FormatConverterOp
  out_tensor_name: image
  out_dtype: rgb888
  resize_width: {job.side_px}
  resize_height: {job.side_px}

picture:  # what the converter gets from a file, squeezed already
  in_dtype: rgb888
  resize_mode: 2  # NPPI_INTER_LINEAR, which leaves it as it is

camera:  # and from V4L2VideoCaptureOp, larger than the network
  in_dtype: rgba8888
  resize_mode: 8  # NPPI_INTER_SUPER, which averages as in training; it only shrinks

engine:  # that trtexec built, in this folder
  file: {job.plan}

inference:  # InferenceOp
  backend: trt
  is_engine_path: true
  pre_processor_map:
    student: ["image"]
  inference_map:
    student: ["probabilities"]
  transmit_on_cuda: false

answer:
  unknown_below: {job.confidence.reject_threshold!r}
"""


def _container(job: Handover) -> str:
    is_orin = (job.target.jetpack or "") < "7"
    if job.release < FIRST_CUDA_IN_NAME:
        return f"v{job.version}-igpu"
    return f"v{job.version}-{'cuda12-igpu' if is_orin else 'cuda13'}"
