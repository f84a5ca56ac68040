"""Latency of a student beside the embedded teacher's image tower, one image, same run.

python tests/benchmarks/student_latency.py [--student mini] [--threads 1 2]

Interleaved single-image runs under ONNX Runtime (how a student is deployed) and in eager torch;
each at its own resolution, random weights where the student has no start weights.
"""

import argparse
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measuring import medians_ms
from torch import Tensor, nn

from dfkd_edge.class_names import ClassNames
from dfkd_edge.config.settings import TeacherConfig
from dfkd_edge.networks.students import build_student
from dfkd_edge.networks.teacher import load_teacher
from dfkd_edge.runtime.session import open_graph


def onnx_run(model: nn.Module, image: Tensor, path: Path, threads: int) -> Callable[[], object]:
    """Export and return a function that runs it once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (image,), path, input_names=["image"], dynamo=False)
    session, values = open_graph(str(path), threads), image.contiguous().numpy()
    return lambda: session.run(None, {"image": values})


@torch.inference_mode()
def main() -> None:
    """Print one line a runtime and thread count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--student", default="mini")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    teacher = load_teacher(TeacherConfig(), ClassNames(("dog", "cat"), ("", "")))
    student = build_student(args.student, "random", teacher.head_KD, teacher.logit_scale).eval()
    tower: Any = teacher.model.visual
    networks: dict[str, tuple[nn.Module, int]] = {
        "tower": (tower, teacher.image_size_px),
        "student": (nn.Sequential(student.backbone, student.projection), student.image_size_px),
    }
    with tempfile.TemporaryDirectory() as folder:
        for threads in args.threads:
            torch.set_num_threads(threads)
            runs: dict[str, Callable[[], object]] = {}
            for name, (model, side_px) in networks.items():
                image = torch.rand(1, 3, side_px, side_px)
                path = Path(folder) / f"{name}.onnx"
                runs[f"onnxruntime {name}"] = onnx_run(model, image, path, threads)
                runs[f"torch {name}"] = partial(model, image)
            ms = medians_ms(runs)
            for runtime in ("onnxruntime", "torch"):
                tower_ms, student_ms = ms[f"{runtime} tower"], ms[f"{runtime} student"]
                print(
                    f"{threads} threads, {runtime}: tower {tower_ms:.2f} ms, student "
                    f"{student_ms:.2f} ms, ratio {student_ms / tower_ms:.3f}"
                )


if __name__ == "__main__":
    main()
