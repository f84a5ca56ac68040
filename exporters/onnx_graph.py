"""A student as one ONNX file that every target can read.

The opset of the target is reached by lowering what the exporter wrote (it writes 18 or newer
natively), and proven twice: by the checker's schemas and by ONNX Runtime against torch.

Shape suffixes: N images, H rows, W columns, C = 3 channels (RGB), D embedding width, K classes.
"""

import contextlib
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dfkd_edge.artifacts import ModelFile, StudentArtifact, StudentSettings
from dfkd_edge.config.settings import ExportConfig
from dfkd_edge.conversion.graph_view import PRECISION_KEY
from dfkd_edge.errors import ConversionError, EnvironmentLackingError
from dfkd_edge.machine.process import muted
from dfkd_edge.networks.runners import TorchRunner
from dfkd_edge.networks.students import Student, load_student
from dfkd_edge.runtime.preprocess import contract, min_usual_max
from dfkd_edge.target_profiles.profile import GraphInput, TargetProfile
from dfkd_edge.version import __version__

from .graph_edit import name_by_weights, restamp, set_batch, take_floats, write_checked
from .runners import make_runner

INPUT, TEXT_HEAD = "image", "text_head"
CLASSES_KEY = "dfkd_edge.classes"  # Of the metadata: the names, in the order of the logits
OUTPUTS = ("logits", "probabilities", "embedding")
DYNAMO_OPSET = 18  # The opset that torch.onnx writes without converting
ABSOLUTE_TOLERANCE, RELATIVE_TOLERANCE = 1e-4, 1e-5
"""Largest difference of logits between torch and ONNX Runtime: two float32 libraries differ by
about 1e-6 of the logit scale."""
NUM_PARITY_IMAGES = 4
MIN_NORM = 1e-12  # As torch's normalize: an embedding of zeros stays one, not NaN


class ExportedStudent(nn.Module):
    """The student with everything that the device would otherwise have to do."""

    scale: Tensor
    shift: Tensor
    text_head: Tensor

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.backbone, self.projection = student.backbone, student.projection
        self.logit_scale = student.logit_scale
        mean, std = student.mean.flatten()[0], student.std.flatten()[0]  # alike in every channel
        self.register_buffer("scale", 1 / (255 * std))
        self.register_buffer("shift", mean / std)
        self.register_buffer("text_head", student.head_KD.T.contiguous())

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Classify RGB uint8 [N, H, W, C]: logits, probabilities [N, K], embedding [N, D]."""
        # TensorRT refuses a Transpose of uint8: cast first
        image_NCHW = image.to(torch.float32).permute(0, 3, 1, 2).contiguous()
        feature = self.projection(self.backbone(image_NCHW * self.scale - self.shift))
        # ReduceSum alone has one signature in opsets 13 to 25; ReduceL2 has two
        norm = torch.sqrt((feature * feature).sum(1, keepdim=True)).clamp_min(MIN_NORM)
        embedding = feature / norm
        logits = (embedding @ self.text_head) * self.logit_scale
        return logits, torch.softmax(logits, dim=1), embedding


class OnnxExporter:
    """Writes the float32 graph from which every other format is made."""

    def export(
        self, student: StudentArtifact, target: TargetProfile, config: ExportConfig, path: Path
    ) -> ModelFile:
        """Write the graph, checked against its schemas and against torch.

        Raises:
            ArtifactError: the student cannot be read.
            ConversionError: neither exporter writes a graph that holds, or the opset is too new.
        """
        # channels-last weights would leave index arithmetic in the graph
        network = load_student(student).to(memory_format=torch.contiguous_format)
        opset = config.opset or target.recommended_opset
        if opset > target.max_opset:
            raise ConversionError(
                f"{target.name} reads ONNX opset {target.max_opset} at most, not {opset}",
                where="--opset",
                hint=f"leave it out to get opset {target.recommended_opset}",
            )
        faults = []
        for exporter, trace in (("dynamo", _trace_dynamo), ("torchscript", _trace_torchscript)):
            try:
                traced = trace(ExportedStudent(network).eval(), network, opset)
                model = finished(traced, config, target.graph_input)
                restamp(model, opset, target.max_ir)
                describe(model, student.settings, config.batch, target.graph_input)
                write_checked(model, "fp32", path)
                notes = _notes(exporter, model, config.batch)
                file = ModelFile(path, "onnx", "fp32", notes)
                notes["max_logit_difference"] = checked_parity(file, network)
            except (EnvironmentLackingError, OSError):  # no other exporter frees the disk
                raise
            except Exception as error:  # whatever a tracer or checker throws, the next may do
                faults.append(f"{exporter}: {_first_line(error)}")
                path.unlink(missing_ok=True)  # what fails the parity check must not ship
            else:
                notes |= {"fallback_from": faults} if faults else {}
                return file
        raise ConversionError(
            f"no ONNX graph of student '{network.timm_name}' holds: {'; '.join(faults)}",
            where=f"opset {opset}",
            hint="choose another student or opset",
        )


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Run a library without its warnings, logs and prints; errors pass."""
    sink = io.StringIO()
    with muted(logging.ERROR), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
        yield


def _trace_dynamo(module: nn.Module, student: Student, opset: int) -> onnx.ModelProto:
    # batch 2: a batch of 1 would be taken for a constant
    with silenced(), torch.no_grad():
        program = torch.onnx.export(
            module,
            (_blank(student, 2),),
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            opset_version=max(opset, DYNAMO_OPSET),
            dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    return model


def _trace_torchscript(module: nn.Module, student: Student, opset: int) -> onnx.ModelProto:
    file = io.BytesIO()
    with silenced(), torch.no_grad():
        torch.onnx.export(
            module,
            (_blank(student, 1),),
            file,  # type: ignore[arg-type]  # its stubs forget file objects
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            opset_version=min(opset, 20),  # the newest that this exporter writes
            dynamic_axes={name: {0: "N"} for name in (INPUT, *OUTPUTS)},
            dynamo=False,
        )
    return onnx.load_from_string(file.getvalue())


def _blank(student: Student, num: int) -> Tensor:
    side = student.image_size_px
    return torch.zeros(num, side, side, 3, dtype=torch.uint8)


def finished(
    model: onnx.ModelProto, config: ExportConfig, graph_input: GraphInput
) -> onnx.ModelProto:
    """Slim the traced graph, set batch and input type, and name nodes after their weights."""
    slim = slimmed(model)
    set_batch(slim, config.batch)
    if graph_input == "float32":
        take_floats(slim, INPUT)
    if any(node.op_type == "Shape" for node in slim.graph.node):
        # attention reads the batch from the input: known now, or read behind the Cast to float
        if graph_input == "uint8":
            read_shape_of_floats(slim.graph)
        slim = slimmed(slim)
    name_by_weights(slim)
    return slim


def slimmed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Fold constants and merge nodes."""
    import onnxslim

    with silenced():
        slim: onnx.ModelProto = onnxslim.slim(model)
    # classes are swapped by swapping this tensor: a slimmer must neither rename nor fold it
    assert TEXT_HEAD in {tensor.name for tensor in slim.graph.initializer}
    return slim


def read_shape_of_floats(graph: onnx.GraphProto) -> None:
    """Read the shape of the input behind its Cast: TensorRT takes no Shape of a UINT8 tensor."""
    nodes = list(graph.node)
    cast = next(node for node in nodes if node.op_type == "Cast" and node.input[0] == INPUT)
    nodes.remove(cast)
    for node in nodes:
        if node.op_type == "Shape" and node.input[0] == INPUT:
            node.input[0] = cast.output[0]
    del graph.node[:]
    graph.node.extend([cast, *nodes])


def describe(
    model: onnx.ModelProto,
    settings: StudentSettings,
    batch: tuple[int, ...],
    graph_input: GraphInput,
) -> None:
    """Write what a reader of the file alone needs to know."""
    onnx.helper.set_model_props(
        model,
        {
            CLASSES_KEY: json.dumps(settings.classes, ensure_ascii=False),
            "dfkd_edge.preprocess": json.dumps(
                contract(settings.image_size_px, min_usual_max(batch), graph_input)
            ),
            PRECISION_KEY: "fp32",
            "dfkd_edge.version": __version__,
        },
    )


def smooth_images(num: int, side_px: int, seed: int = 0) -> NDArray[np.uint8]:
    """Draw pictures that are smooth as surrogate images are, [N, H, W, C]."""
    generator = torch.Generator().manual_seed(seed)
    grids = [torch.rand(num, 3, cells, cells, generator=generator) for cells in (6, 24)]
    coarse, fine = (
        nn.functional.interpolate(grid, (side_px, side_px), mode="bicubic", align_corners=False)
        for grid in grids
    )
    image_NCHW = (0.75 * coarse + 0.25 * fine).clamp(0, 1) * 255
    pixels: NDArray[np.uint8] = image_NCHW.permute(0, 2, 3, 1).round().to(torch.uint8).numpy()
    return pixels


def checked_parity(file: ModelFile, student: Student) -> float:
    """Compare the graph with torch and return the largest difference of logits.

    Raises:
        ConversionError: they differ by more than float32 arithmetic does.
    """
    image_NHWC = smooth_images(NUM_PARITY_IMAGES, student.image_size_px)
    given = make_runner(file, num_threads=1)(image_NHWC)
    wanted = TorchRunner("student", student)(image_NHWC)
    difference = np.abs(given.logits - wanted.logits)
    worst = float(difference.max())
    if not (difference <= ABSOLUTE_TOLERANCE + RELATIVE_TOLERANCE * np.abs(wanted.logits)).all():
        raise ConversionError(f"logits differ from torch's by {worst:.2g}", where=str(file.path))
    return worst


def _notes(exporter: str, model: onnx.ModelProto, batch: tuple[int, ...]) -> dict[str, Any]:
    return {
        "exporter": exporter,
        "opset": model.opset_import[0].version,
        "ir_version": model.ir_version,
        "batch": list(min_usual_max(batch)),
        "num_nodes": len(model.graph.node),
    }


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
