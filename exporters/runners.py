"""Runs converted graphs on the host as the device check does, with ONNX Runtime on the CPU."""

import platform

import numpy as np
import onnx

from dfkd_edge.artifacts import ModelFile
from dfkd_edge.conversion.graph_view import DEQUANTIZE, WEIGHTED, GraphView
from dfkd_edge.errors import ConversionError
from dfkd_edge.networks.runners import SessionRunner
from dfkd_edge.runtime.device import cpu_saturates
from dfkd_edge.runtime.faults import Fault
from dfkd_edge.runtime.session import OnnxSession, SessionRequest
from dfkd_edge.target_profiles.profile import REDUCED_RANGE

from .quantized_weights import is_depthwise

MAX_BATCH = 64  # Images in one call where the graph leaves the batch open; bounds memory


def make_runner(model: ModelFile, num_threads: int = 0, for_answers: bool = False) -> SessionRunner:
    """Open a graph such that it answers as it does on its target; as `interfaces.RunnerMaker`."""
    in_float = False
    if model.precision == "int8":
        view = GraphView(onnx.load(model.path))
        in_float = saturates_here(view) or (for_answers and is_foreign_here(view))
    request = SessionRequest(
        model.path, model.precision, num_threads=num_threads, batch=(1, MAX_BATCH, MAX_BATCH)
    )
    try:
        return SessionRunner(f"onnx-{model.precision}", OnnxSession(request, in_float))
    except Fault as fault:
        raise ConversionError(fault.what, where=fault.where, hint=fault.hint) from fault


def saturates_here(view: GraphView) -> bool:
    """Whether INT8 kernels of this CPU would clip sums that the target's do not."""
    return cpu_saturates() and any(
        weight.dtype == np.int8 and np.abs(weight.astype(np.int16)).max() > REDUCED_RANGE
        for node in view.graph.node
        if not is_depthwise(node) and (weight := view.weight(node)) is not None
    )


def is_foreign_here(view: GraphView) -> bool:
    """Whether x86 has no kernels for this INT8: signed activations, as of TensorRT or Arm.

    onnxruntime computes most layers of it in float anyway and converts in between; all in float is
    the same arithmetic in less time.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    for node in view.graph.node:
        source = view.made_by(node.input[0], DEQUANTIZE) if node.op_type in WEIGHTED else None
        if source is not None:  # one tells of all: the target's spec sets the type
            zero = view.constant(source.input[2])
            return zero is not None and zero.dtype == np.int8
    return False
