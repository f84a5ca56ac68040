"""What a figure that was measured here does not say about the target: one sentence each."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from typing import TYPE_CHECKING

from dfkd_edge.runtime.device import TO_INSTALL, machine_name, may_be_jetson

if TYPE_CHECKING:
    from dfkd_edge.runtime.bundle_manifest import Manifest

FP16_IN_ENGINE = (
    "the bundle holds the FP32 graph, and that is what onnxruntime runs: FP16 exists only in the "
    "engine that TensorRT builds on the device"
)

GATE_FAILED = (
    "Gate: FAILED: this model lost more than was allowed when it was converted (validation.json)"
)


def graph_notes(precision: str, held: Iterable[str]) -> list[str]:
    """Note that an FP16 bundle runs its FP32 graph here, where it holds no FP16 graph."""
    return [FP16_IN_ENGINE] if precision == "fp16" and "fp16" not in held else []


def graph_name(shown: str, precision: str, held: Iterable[str]) -> str:
    """Name a graph of a bundle as what it is: FP16 without a graph of its own is FP32 here.

    Args:
        shown: precision of the graph.
        precision: the bundle's recommended one.
        held: precisions that the bundle holds graphs of.
    """
    is_flag = shown != "int8" and graph_notes(precision, held)
    return "fp32 graph of the fp16 bundle" if is_flag else shown


def time_caveats(precision: str, backend: str, graph_for: str, in_float: bool) -> list[str]:
    """Explain why the time of a graph here says nothing of its precision; empty where it does.

    Args:
        precision: of the graph.
        backend: what ran it, `tensorrt` or `onnxruntime`.
        graph_for: backend of the target that the graph was made for.
        in_float: whether INT8 was computed in float, since this CPU's 8-bit sums saturate.
    """
    if backend != "onnxruntime" or precision == "fp32":
        return []
    if in_float:
        reason = "8-bit sums of this CPU saturate, so INT8 was computed in float"
    elif graph_for == "tensorrt":
        # its INT8 kernels need Q/DQ on both sides of an op; for TensorRT, outputs have none
        graph = f"{precision.upper()} graph for TensorRT"
        reason = f"onnxruntime computes most layers of an {graph} in float"
    else:
        return []
    if may_be_jetson():
        return [f"{reason}: the time that counts is TensorRT's, {TO_INSTALL} on a Jetson"]
    return [f"{reason}: check.pyz on the device gives the time that counts"]


def why_not_target(manifest: Manifest, backend: str) -> str:
    """Say what makes this run another than one on the target; empty where it is one."""
    beside = f"{backend}, not the target's {manifest.backend}"
    return why_no_target(manifest.machine) or (beside if backend != manifest.backend else "")


def why_no_target(machine: str) -> str:
    """Say what makes this machine another than the target; empty where it may be one."""
    here, system = machine_name(), platform.system()
    if here != machine:
        return f"{here} host, not the target"
    is_mac = here == "aarch64" and system != "Linux"  # Arm targets are boards with Linux
    return f"{here} host with {system}, not the target" if is_mac else ""
