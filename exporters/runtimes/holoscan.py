"""Holoscan SDK: an application of five operators around InferenceOp, and its parameters.

FormatConverterOp gives bytes of RGB, squeezed to the square. InferenceOp tells outputs apart by
their place alone, so that the graph has one; its builder sets no INT8, so the engine is trtexec's.
"""

from collections.abc import Mapping

from dfkd_edge.handover.request import Handover
from dfkd_edge.handover.wording import readme

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


class PictureOp(Operator):
    """Emits one picture as RGB bytes [height, width, 3]."""

    def __init__(self, fragment, *args, path, **kwargs):
        self.path = path
        super().__init__(fragment, *args, **kwargs)

    def setup(self, spec: OperatorSpec):
        spec.output("signal")

    def compute(self, op_input, op_output, context):
        from PIL import Image, ImageOps

        upright = ImageOps.exif_transpose(Image.open(self.path))
        op_output.emit({"": np.asarray(upright.convert("RGB"))}, "signal")


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
            source = PictureOp(self, once, name="picture", path=self.source)
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
  resize_mode: 2  # NPPI_INTER_LINEAR; 8, NPPI_INTER_SUPER, averages where a source is larger

picture:  # what the converter gets from a file
  in_dtype: rgb888

camera:  # and from V4L2VideoCaptureOp
  in_dtype: rgba8888

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
