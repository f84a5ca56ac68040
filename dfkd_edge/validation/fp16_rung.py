"""FP16 of a bundle that holds the FP32 graph alone, since its TensorRT takes FP16 as a flag.

What FP16 costs is measured on the host all the same, by `export` and `check` alike: on that graph,
cast. The cast is no file of the bundle, so the rung has the size of what is.
"""

import contextlib
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

from dfkd_edge.artifacts import ModelFile
from dfkd_edge.bundles.origin import graphs
from dfkd_edge.plugins import load_exporter
from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.runtime.caveats import graph_notes
from dfkd_edge.validation.ladder import Rung

FP16_MEASURED = (
    "the bundle holds the FP32 graph, and the engine that TensorRT builds from it on the device "
    "computes in FP16; onnx-fp16 is that graph, cast here to measure what FP16 costs: its size is "
    "that of the file in the bundle, and its time comes from the device"
)


def ladder_notes_of(precision: str, held: Collection[str]) -> list[str]:
    """Say at a ladder that its FP16 rung is no file of the bundle, where that is so."""
    return [FP16_MEASURED] if graph_notes(precision, held) else []


@contextlib.contextmanager
def measured_graphs(bundle: Bundle) -> Iterator[list[ModelFile]]:
    """The graphs of a bundle, and the cast of FP16 where it holds none, for as long as needed."""
    held = graphs(bundle)
    if not graph_notes(bundle.precision, bundle.manifest.models):
        yield held
        return
    with tempfile.TemporaryDirectory() as folder:
        fp32 = next(model for model in held if model.precision == "fp32")
        yield [*held, load_exporter("fp16").cast(fp32, Path(folder) / "model.fp16.onnx")]


def as_in_bundle(rungs: tuple[Rung, ...], held: Collection[str]) -> tuple[Rung, ...]:
    """Give the rung of a cast the size of the FP32 file, and no time: no such file is run."""
    fp32 = next(rung for rung in rungs if rung.name == "onnx-fp32")
    return tuple(
        replace(rung, size_bytes=fp32.size_bytes, latency_ms=None, latency_caveats=())
        if rung.name == "onnx-fp16" and "fp16" not in held
        else rung
        for rung in rungs
    )
