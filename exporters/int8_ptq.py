"""INT8 after training: explicit Q/DQ as the target's quantization spec wants it.

Shape suffixes: N images, S side, C = 3 channels (RGB).
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from dfkd_edge.artifacts import Bytes, ModelFile
from dfkd_edge.config.settings import ExportConfig
from dfkd_edge.conversion.graph_view import GraphView
from dfkd_edge.errors import ConfigError, ConversionError
from dfkd_edge.interfaces import Calibration
from dfkd_edge.runtime.session import as_fed, open_graph
from dfkd_edge.target_profiles.profile import QuantizationSpec, TargetProfile

from .graph_edit import set_batch, write_checked
from .quantization_plan import plan_quantization, weighted_nodes
from .quantize_graph import GraphQuantizer
from .range_estimators import RangeObserver, largest_change

INHERITED_NOTES = ("exporter", "opset", "ir_version", "batch")


class Int8Exporter:
    """Float32 graph and calibration to INT8 graph."""

    def quantizable_nodes(self, fp32: ModelFile, target: TargetProfile) -> list[str]:
        """Names of the layers that become INT8, in the graph's order."""
        view = GraphView(onnx.load(fp32.path))
        return [node.name for node in weighted_nodes(view, _spec(target))]

    def calibrate(
        self, fp32: ModelFile, image_NSSC: Bytes, target: TargetProfile, config: ExportConfig
    ) -> Calibration:
        """Measure the ranges of all tensors that INT8 may concern."""
        if len(image_NSSC) < target.min_calibration_images:
            raise ConfigError(
                f"{len(image_NSSC)} calibration images are too few for {target.name}",
                where="--calib-size",
                hint=f"{target.min_calibration_images} or more are needed",
            )
        model = onnx.load(fp32.path)
        plan = plan_quantization(GraphView(model), _spec(target))
        observer = RangeObserver(list(plan.readers))
        del model.graph.output[:]
        set_batch(model, (1,))  # images are fed one at a time, whatever the graph's batch is
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in observer.names)
        session = open_graph(model.SerializeToString(), config.num_threads)
        snapshots = {}  # Of a quarter and a half: would more images change anything?
        for number, image in enumerate(image_NSSC, start=1):
            fed = {"image": as_fed(session, image[None])}
            observer.add(session.run(list(observer.names), fed))
            if number in (len(image_NSSC) // 4, len(image_NSSC) // 2):
                snapshots[str(number)] = observer.ranges(config)
        ranges = observer.ranges(config)
        return Calibration(
            ranges=ranges,
            channel_means=observer.channel_means(),
            method=_method(config),
            num_images=len(image_NSSC),
            sha256=image_hash(image_NSSC),
            half_difference=observer.half_difference(config),
            growth={count: largest_change(early, ranges) for count, early in snapshots.items()},
        )

    def export(
        self,
        fp32: ModelFile,
        calibration: Calibration,
        target: TargetProfile,
        config: ExportConfig,
        path: Path,
        float_nodes: frozenset[str] = frozenset(),
    ) -> ModelFile:
        """Write the INT8 graph; layers named in `float_nodes` stay float."""
        spec = _spec(target)
        model = onnx.load(fp32.path)
        view = GraphView(model)
        unknown = float_nodes - {node.name for node in weighted_nodes(view, spec)}
        if unknown:
            raise ConversionError(f"no such INT8 layer: {', '.join(sorted(unknown))}")
        plan = plan_quantization(view, spec, float_nodes)
        missing = plan.readers.keys() - calibration.ranges.keys()
        if missing:
            raise ConversionError(
                f"calibration lacks {len(missing)} tensors, such as '{min(missing)}'",
                where=str(fp32.path),
                hint="calibrate again: the graph is another one",
            )
        GraphQuantizer(view, spec, plan, calibration).rewrite()
        write_checked(model, "int8", path)
        notes: dict[str, Any] = {
            **{key: fp32.notes[key] for key in INHERITED_NOTES if key in fp32.notes},
            "quantization": spec.name,
            "num_int8_layers": len(plan.weighted),
            "num_quantized_tensors": len(plan.readers),
            "float_nodes": sorted(float_nodes),
        }
        return ModelFile(path, "onnx", "int8", notes)


def image_hash(image_NSSC: Bytes) -> str:
    """SHA-256 over shape and pixels, in hex."""
    digest = hashlib.sha256(repr(image_NSSC.shape).encode())
    digest.update(np.ascontiguousarray(image_NSSC).tobytes())
    return digest.hexdigest()


def _spec(target: TargetProfile) -> QuantizationSpec:
    if target.quantization is None:
        raise ConversionError(
            f"{target.name} has no INT8",
            where="--precision int8",
            hint=target.no_int8_reason or f"use {target.best_precision}",
        )
    return target.quantization


def _method(config: ExportConfig) -> str:
    method = config.calibration_method
    return f"{method} {config.percentile:g}" if method == "percentile" else method
