"""The same graph with other classes: its text head is one tensor, in float at every precision.

Shape suffixes: D embedding width, K classes.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import numpy_helper

from dfkd_edge.artifacts import Floats, ModelFile
from dfkd_edge.errors import ConversionError

from .graph_edit import write_checked
from .onnx_graph import CLASSES_KEY, TEXT_HEAD

OF_CLASSES = ("logits", "probabilities")
"""Outputs that are as wide as the list."""


class HeadSwapExporter:
    """Graph to graph of other classes; no other weight, scale or node changes."""

    def export(
        self, model: ModelFile, head_DK: Floats, class_names: Sequence[str], path: Path
    ) -> ModelFile:
        """Write the graph, checked against the schemas of its opset."""
        graph = onnx.load(model.path)
        heads = [tensor for tensor in graph.graph.initializer if tensor.name == TEXT_HEAD]
        if len(heads) != 1 or heads[0].dims[0] != len(head_DK):
            raise ConversionError(
                "graph has no text head of its teacher's width",
                where=str(model.path),
                hint="export the bundle again",
            )
        heads[0].CopyFrom(numpy_helper.from_array(head_DK, TEXT_HEAD))
        for value in graph.graph.output:
            if value.name in OF_CLASSES:
                value.type.tensor_type.shape.dim[-1].dim_value = len(class_names)
        del graph.graph.value_info[:]  # shapes of the earlier list, which the checker finds again
        for item in graph.metadata_props:
            if item.key == CLASSES_KEY:
                item.value = json.dumps(list(class_names), ensure_ascii=False)
        write_checked(graph, model.precision, path)
        return ModelFile(path, "onnx", model.precision, dict(model.notes))
