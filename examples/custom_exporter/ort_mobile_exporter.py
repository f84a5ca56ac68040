"""An exporter: ONNX graph to ONNX Runtime's own format, which its minimal builds on phones read."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from dfkd_edge.artifacts import ModelFile
from dfkd_edge.config.settings import ExportConfig
from dfkd_edge.errors import ConversionError
from dfkd_edge.target_profiles.profile import TargetProfile


class OrtMobileExporter:
    """Writes a `.ort` file of a graph of any precision."""

    def export(
        self, model: ModelFile, target: TargetProfile, config: ExportConfig, path: Path
    ) -> ModelFile:
        """Let ONNX Runtime load the graph and write it in its own format.

        Raises:
            ConversionError: the target has another runtime, or ONNX Runtime refuses the graph.
        """
        if target.backend != "onnxruntime":
            raise ConversionError(
                f"{target.name} runs {target.backend}, which reads no .ort file",
                where="ort-mobile",
                hint="choose a CPU board of `dfkd-edge targets list`",
            )
        options = onnxruntime.SessionOptions()
        # basic optimisations hold on every CPU; the higher ones would bind the file to this one
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        options.add_session_config_entry("session.save_model_format", "ORT")
        options.log_severity_level = 3
        try:
            onnxruntime.InferenceSession(str(model.path), options, ["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors share no better base
            raise ConversionError(f"ONNX Runtime: {error}", where=str(model.path)) from error
        return ModelFile(path, "ort", model.precision, dict(model.notes))
