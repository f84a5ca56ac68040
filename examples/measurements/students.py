"""Which timm students a target takes: FP32, FP16 and INT8 through lint and TensorRT-RTX's builder.

Weights are random: whether a graph is legal, its size and its time do not depend on them. Time is
ONNX Runtime's for one image on one thread of this CPU.

    python examples/measurements/students.py [TIMM_NAME ...] [--target jetson] [--imgsz 224]
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from dfkd_edge.artifacts import ModelFile, StudentArtifact
from dfkd_edge.config.settings import DistillationConfig, ExportConfig
from dfkd_edge.conversion.lint import lint_model, refuse_errors
from dfkd_edge.conversion.trial import untrained
from dfkd_edge.errors import DfkdEdgeError
from dfkd_edge.networks.operations import operations
from dfkd_edge.networks.students import load_student, require_side
from dfkd_edge.plugins import load_exporter
from dfkd_edge.target_profiles.lookup import load_target

FAMILIES = (
    *("vit_tiny_patch16_224", "deit_tiny_patch16_224", "convnext_atto", "efficientvit_b0"),
    *("repvit_m0_9", "fastvit_t8", "mobilenetv4_conv_small", "resnet18", "mobilenetv2_100"),
    *("mobilenetv3_small_100", "efficientnet_lite0", "efficientformer_l1", "levit_128s"),
    *("mobilevit_xxs", "edgenext_xx_small", "ghostnet_100", "regnetx_002", "tiny_vit_5m_224"),
    *("swin_tiny_patch4_window7_224", "poolformer_s12", "xcit_nano_12_p16_224", "mobileone_s0"),
)
NUM_CALIBRATION_IMAGES, NUM_TIMED = 16, 20
IMAGES = np.random.default_rng(0).integers(0, 256, (NUM_CALIBRATION_IMAGES, 7, 7, 3), np.uint8)


def counted(name: str, side_px: int, folder: Path) -> tuple[StudentArtifact, float, float]:
    """Save a student with random weights; returns its millions of parameters and of MACs, too."""
    artifact = untrained(name, side_px, folder)
    millions = operations(load_student(artifact), (3, side_px, side_px), "cpu") / 2e6
    return artifact, artifact.settings.num_parameters / 1e6, millions


def median_ms(model: ModelFile, image_NHWC: np.ndarray) -> float:
    """Time one image on one thread."""
    runner, times = load_exporter("runner")(model, 1, False), []
    for _ in range(NUM_TIMED):
        begun = time.perf_counter()
        runner(image_NHWC[:1])
        times.append(time.perf_counter() - begun)
    return 1e3 * float(np.median(times[NUM_TIMED // 4 :]))  # the first ones fill caches


def row(name: str, side_px: int, target_name: str, folder: Path) -> str:
    """Take one student through every precision; what stops it stands in its cell."""
    # ranges of so few images say nothing of accuracy, which is not measured here
    target = replace(load_target(target_name), min_calibration_images=1)
    config = ExportConfig(target=target_name)
    require_side(DistillationConfig(student=name, image_size_px=side_px))
    artifact, num_parameters, num_macs = counted(name, side_px, folder)
    image_NHWC = IMAGES.repeat(-(-side_px // 7), 1).repeat(-(-side_px // 7), 2)
    image_NHWC = np.ascontiguousarray(image_NHWC[:, :side_px, :side_px])
    oracle, strict = load_exporter("oracle"), replace(target, typing="strong")
    cells, times = [], []

    def legal(make: Callable[[], ModelFile]) -> ModelFile | None:
        try:
            model = make()
            refuse_errors(lint_model(model.path, strict), model.path)
            if target.backend == "tensorrt" and oracle.available():
                oracle.build(model.path, (1, 1, 1))
        except DfkdEdgeError as error:
            cells.append(error.what.split(": ")[0][:60])
            return None
        cells.append("yes")
        times.append(f"{median_ms(model, image_NHWC):.1f}")
        return model

    fp32 = legal(
        lambda: load_exporter("onnx").export(artifact, target, config, folder / "m.fp32.onnx")
    )
    if fp32:
        cast, int8 = load_exporter("fp16"), load_exporter("int8")
        legal(lambda: cast.export(fp32, target, config, folder / "m.fp16.onnx"))
        legal(
            lambda: int8.export(
                fp32,
                int8.calibrate(fp32, image_NHWC, target, config),
                target,
                config,
                folder / "m.int8.onnx",
            )
        )
    cells += ["-"] * (3 - len(cells))
    return " | ".join((name, *cells, f"{num_parameters:.1f}", f"{num_macs:.0f}", ", ".join(times)))


def main() -> None:
    """Print a table, a row as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=FAMILIES)
    parser.add_argument("--target", default="jetson")
    parser.add_argument("--imgsz", type=int, default=224)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| student | fp32 | fp16 | int8 | parameters, M | MACs, M | ms: fp32, fp16, int8 |")
    print("|---|---|---|---|---|---|---|")
    for name in options.names:
        with tempfile.TemporaryDirectory() as folder:
            try:
                print(f"| {row(name, options.imgsz, options.target, Path(folder))} |", flush=True)
            except DfkdEdgeError as error:
                print(f"| {name} | {error} | | | | | |", flush=True)


if __name__ == "__main__":
    main()
