"""Runs the rungs of the conversion ladder on the host: torch and ONNX Runtime.

Shape suffixes: N images, H rows, W columns, C = 3 channels (RGB).
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from dfkd_edge.artifacts import ModelFile
from dfkd_edge.errors import ConversionError
from dfkd_edge.interfaces import ModelOutputs, Runner
from dfkd_edge.networks.students import Student
from dfkd_edge.runtime.device import cpu_saturates
from dfkd_edge.target_profiles.profile import REDUCED_RANGE

from .graph_edit import WEIGHTED, GraphView
from .quantized_weights import is_depthwise

MAX_BATCH = 64
"""Images in one call where the graph leaves the batch open; bounds memory."""


def make_session(model: str | bytes, num_threads: int, in_float: bool = False) -> Any:
    """Open a model in ONNX Runtime on the CPU.

    Args:
        model: path or content.
        num_threads: 0 takes all cores.
        in_float: compute between Q and DQ in float, as exact as 32-bit sums.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if in_float:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only: its warnings are about its own optimiser
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _dequantized(view: GraphView, name: str) -> onnx.NodeProto | None:
    source = view.producer.get(name)
    return source if source is not None and source.op_type == "DequantizeLinear" else None


def saturates_here(path: Path) -> bool:
    """Whether INT8 kernels of this CPU would clip sums that the target's do not."""
    if not cpu_saturates():
        return False
    view = GraphView(onnx.load(path))
    for node in view.graph.node:
        source = _dequantized(view, node.input[1]) if node.op_type in WEIGHTED else None
        if source is None or is_depthwise(node):
            continue
        weight = view.constant(source.input[0])
        if weight is not None and np.abs(weight.astype(np.int16)).max() > REDUCED_RANGE:
            return True
    return False


def is_foreign_here(path: Path) -> bool:
    """Whether x86 has no kernels for this INT8: signed activations, as of TensorRT or Arm.

    onnxruntime computes most layers of it in float anyway and converts in between; all in float is
    the same arithmetic in less time.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    view = GraphView(onnx.load(path))
    for node in view.graph.node:
        source = _dequantized(view, node.input[0]) if node.op_type in WEIGHTED else None
        if source is not None:
            zero = view.constant(source.input[2])
            return zero is not None and zero.dtype == np.int8
    return False


class OnnxRuntimeRunner:
    """One ONNX file in ONNX Runtime on the CPU, computing what the target computes."""

    def __init__(self, model: ModelFile, num_threads: int = 0, for_answers: bool = False) -> None:
        """Open the session.

        Args:
            model: the file, with its precision.
            num_threads: 0 takes all cores.
            for_answers: not to be timed: INT8 meant for other machines may be computed in float.

        Raises:
            ConversionError: ONNX Runtime refuses the file.
        """
        self.name = f"onnx-{model.precision}"
        try:
            self.computes_in_float = model.precision == "int8" and (
                saturates_here(model.path) or (for_answers and is_foreign_here(model.path))
            )
            self._session = make_session(str(model.path), num_threads, self.computes_in_float)
        except Exception as error:  # onnxruntime's errors share no public base class
            line = str(error).strip().splitlines()[0]
            raise ConversionError(
                f"ONNX Runtime refuses the model: {line}", where=str(model.path)
            ) from error
        batch = self._session.get_inputs()[0].shape[0]
        self._batch: int | None = batch if isinstance(batch, int) else None

    def __call__(self, image_NHWC: NDArray[np.uint8]) -> ModelOutputs:
        """Classify RGB images, in pieces of the graph's batch; the last piece is filled up."""
        size = self._batch or MAX_BATCH
        parts = [self._run(image_NHWC[i : i + size]) for i in range(0, len(image_NHWC), size)]
        columns = (np.concatenate(column) for column in zip(*parts, strict=True))
        return ModelOutputs(*columns)

    def _run(self, piece_NHWC: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        count = len(piece_NHWC)
        if self._batch and count < self._batch:
            filler = np.repeat(piece_NHWC[-1:], self._batch - count, axis=0)
            piece_NHWC = np.concatenate([piece_NHWC, filler])
        names = ["logits", "probabilities", "embedding"]
        outputs = self._session.run(names, {"image": np.ascontiguousarray(piece_NHWC)})
        return [output[:count] for output in outputs]


class StudentRunner:
    """The distilled student in torch."""

    name = "student"

    def __init__(self, student: Student) -> None:
        """Take a student in evaluation mode."""
        self._student = student

    @torch.no_grad()
    def __call__(self, image_NHWC: NDArray[np.uint8]) -> ModelOutputs:
        """Classify RGB images of the student's size, MAX_BATCH at a time."""
        device = self._student.head_KD.device
        logits, embeddings = [], []
        for start in range(0, len(image_NHWC), MAX_BATCH):
            piece = torch.from_numpy(image_NHWC[start : start + MAX_BATCH]).to(device)
            embedding = self._student.embed(piece.permute(0, 3, 1, 2).float() / 255)
            embeddings.append(embedding.cpu())
            logits.append(self._student.logits(embedding).float().cpu())
        logit = torch.cat(logits)
        probability = torch.softmax(logit, dim=1)
        return ModelOutputs(logit.numpy(), probability.numpy(), torch.cat(embeddings).numpy())


def make_runner(model: ModelFile, num_threads: int = 0, for_answers: bool = False) -> Runner:
    """Open the runner of a model file; arguments as of OnnxRuntimeRunner.

    Raises:
        ConversionError: no runner on this host reads the format.
    """
    if model.format != "onnx":
        raise ConversionError(
            "an engine runs only on the device that built it",
            where=str(model.path),
            hint="run the bundle's check.pyz there",
        )
    return OnnxRuntimeRunner(model, num_threads, for_answers)
