"""Our INT8 beside onnxruntime's quantize_static and NVIDIA ModelOpt: same student, same images.

python tests/benchmarks/int8_vs_others.py RUN --data DIR --modelopt-venv VENV

All three quantize the same FP32 graph and calibrate on the same surrogate images. VENV is made when
it is not there: nvidia-modelopt pins an onnx of its own. Latency is ONNX Runtime's on this CPU,
interleaved, so that a busy machine disturbs all alike; ModelOpt's graphs are meant for TensorRT.
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import venv
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from dfkd_edge.exporters.int8_ptq import Int8Exporter
from dfkd_edge.exporters.onnx_graph import OnnxExporter
from dfkd_edge.exporters.runners import make_runner
from measuring import labelled, medians_ms
from numpy.typing import NDArray

from dfkd_edge.artifacts import ModelFile
from dfkd_edge.config.settings import ExportConfig
from dfkd_edge.conversion.calibration_source import select_surrogates
from dfkd_edge.runs.finished import open_finished_run
from dfkd_edge.runtime.session import open_graph
from dfkd_edge.target_profiles.lookup import load_target

Images = NDArray[np.uint8]
MODELOPT_PACKAGES = ("nvidia-modelopt[onnx]", "onnxruntime")
OURS = {"ours, jetson": "jetson", "ours, x86-cpu": "x86-cpu"}


def quantize_static_defaults(fp32: Path, images: Images, path: Path) -> ModelFile:
    """Run onnxruntime.quantization as it comes: QDQ, min-max, per tensor."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
        """Hands the images out one by one."""

        def __init__(self) -> None:
            self.rest = iter(images)

        def get_next(self) -> dict[str, Images] | None:
            """Next input, or None."""
            image = next(self.rest, None)
            return None if image is None else {"image": image[None]}

    logging.disable(logging.WARNING)
    quantize_static(str(fp32), str(path), Reader())
    return ModelFile(path, "onnx", "int8", {})


def modelopt_python(folder: Path) -> Path:
    """Python of an environment with nvidia-modelopt; made when it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *MODELOPT_PACKAGES], check=True)
    return python


def modelopt_ptq(python: Path, fp32: Path, images: Images, path: Path) -> ModelFile:
    """Run ModelOpt's command with its defaults for INT8."""
    data = path.with_suffix(".npy")
    np.save(data, images)
    command: list[str | Path] = [python, "-m", "modelopt.onnx.quantization"]
    command += ["--quantize_mode", "int8", "--calibration_eps", "cpu"]
    command += ["--onnx_path", fp32, "--calibration_data_path", data, "--output_path", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"ModelOpt failed:\n{done.stderr[-2000:]}")
    return ModelFile(path, "onnx", "int8", {})


def main() -> None:
    """Quantize three ways, measure and print one table as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--modelopt-venv", type=Path, help="left out: ModelOpt is left out")
    parser.add_argument("--calib-size", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, help="folder that keeps the graphs")
    args = parser.parse_args()
    work = args.work or Path(tempfile.mkdtemp())
    work.mkdir(parents=True, exist_ok=True)
    run = open_finished_run(args.run)
    config = ExportConfig(num_threads=args.threads)
    side_px = run.student.settings.image_size_px
    fp32 = OnnxExporter().export(run.student, load_target("jetson"), config, work / "fp32.onnx")
    images = select_surrogates(run.surrogates, args.calib_size, side_px, 0).images
    models = {"fp32": fp32}
    for name, target_name in OURS.items():
        target = load_target(target_name)
        calibration = Int8Exporter().calibrate(fp32, images, target, config)
        path = work / f"ours.{target_name}.onnx"
        models[name] = Int8Exporter().export(fp32, calibration, target, config, path)
    models["quantize_static"] = quantize_static_defaults(fp32.path, images, work / "static.onnx")
    if args.modelopt_venv:
        python = modelopt_python(args.modelopt_venv)
        models["modelopt"] = modelopt_ptq(python, fp32.path, images, work / "modelopt.onnx")
    runners = {name: make_runner(model, args.threads) for name, model in models.items()}
    table: dict[str, dict[str, Any]] = {name: {"top1": {}, "agreement": {}} for name in models}
    classes = run.student.settings.classes
    for domain, pictures, label in labelled(args.data, classes, side_px):
        answers = {name: runner(pictures).logits.argmax(1) for name, runner in runners.items()}
        for name, answer in answers.items():
            table[name]["top1"][domain] = round(float((answer == label).mean()), 4)
            agreement = float((answer == answers["fp32"]).mean())
            table[name]["agreement"][domain] = round(agreement, 4)
    runs = {
        name: partial(open_graph(str(model.path), args.threads).run, None, {"image": images[:1]})
        for name, model in models.items()
    }
    times = medians_ms(runs)
    for name, row in table.items():
        row["drop"] = round(
            float(np.mean([*table["fp32"]["top1"].values()]) - np.mean([*row["top1"].values()])), 4
        )
        row["ms"] = round(times[name], 2)
        row["ms_ratio"] = round(times[name] / times["fp32"], 3)
        row["bytes"] = models[name].size_bytes
    print(json.dumps({"student": run.student.settings.timm_name, "models": table}, indent=2))


if __name__ == "__main__":
    main()
