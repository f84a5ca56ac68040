"""INT8 after training: explicit Q/DQ as the target's quantization spec wants it.

Shape suffixes: N images, S side, C = 3 channels (RGB).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from dfkd_edge.artifacts import Bytes, ModelFile
from dfkd_edge.config.settings import ExportConfig
from dfkd_edge.errors import ConversionError
from dfkd_edge.files import atomic_write
from dfkd_edge.target_profiles.profile import QuantizationSpec, TargetProfile

from .calibration import (
    Calibration,
    RangeObserver,
    check_calibration_size,
    image_hash,
    largest_change,
)
from .graph_edit import GraphView, serialise, set_batch, set_precision
from .quantization_plan import (
    plan_quantization,
    weighted_nodes,
)
from .quantize_graph import GraphQuantizer
from .runners import make_session

INHERITED_NOTES = ("exporter", "opset", "ir_version", "batch")


class Int8Exporter:
    """Float32 graph and calibration to INT8 graph."""

    name = "int8"

    def quantizable_nodes(self, fp32: ModelFile, target: TargetProfile) -> list[str]:
        """Names of the layers that become INT8, in the graph's order.

        Raises:
            ConversionError: the target has no INT8.
        """
        view = GraphView(onnx.load(fp32.path))
        return [node.name for node in weighted_nodes(view, _spec(target))]

    def calibrate(
        self, fp32: ModelFile, image_NSSC: Bytes, target: TargetProfile, config: ExportConfig
    ) -> Calibration:
        """Measure the ranges of all tensors that INT8 may concern.

        Raises:
            ConfigError: fewer images than the target needs.
            ConversionError: the target has no INT8.
        """
        check_calibration_size(image_NSSC, target)
        model = onnx.load(fp32.path)
        plan = plan_quantization(GraphView(model), _spec(target))
        observer = RangeObserver(list(plan.readers))
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in observer.names)
        set_batch_of_input(model)
        session = make_session(serialise(model), config.num_threads)
        snapshots = {}
        for number, image in enumerate(image_NSSC, start=1):
            observer.add(session.run(list(observer.names), {"image": image[None]}))
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
        """Write the INT8 graph; layers named in `float_nodes` stay float.

        Raises:
            ConversionError: the target has no INT8, a layer is unknown, or the result is no valid
                graph.
        """
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
        _stamp(model, path)
        notes: dict[str, Any] = {
            **{key: fp32.notes[key] for key in INHERITED_NOTES if key in fp32.notes},
            "quantization": spec.name,
            "num_int8_layers": len(plan.weighted),
            "num_quantized_tensors": len(plan.readers),
            "float_nodes": sorted(float_nodes),
        }
        return ModelFile(path, "onnx", "int8", notes)


def set_batch_of_input(model: onnx.ModelProto) -> None:
    """Let calibration feed one image at a time, whatever the graph's batch is."""
    outputs = list(model.graph.output)
    del model.graph.output[:]
    set_batch(model, (1,))
    model.graph.output.extend(outputs)


def _spec(target: TargetProfile) -> QuantizationSpec:
    if target.quantization is None:
        raise ConversionError(
            f"{target.name} has no INT8",
            where="--precision int8",
            hint=target.no_int8_reason or f"use {target.best_precision}",
        )
    return target.quantization


def _method(config: ExportConfig) -> str:
    if config.calibration_method == "percentile":
        return f"percentile {config.percentile:g}"
    return config.calibration_method


def _stamp(model: onnx.ModelProto, path: Path) -> None:
    set_precision(model, "int8")
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        line = str(error).strip().splitlines()[0]
        raise ConversionError(f"the INT8 graph is not valid: {line}", where=str(path)) from error
    atomic_write(path, serialise(model))
