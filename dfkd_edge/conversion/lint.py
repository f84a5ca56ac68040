"""Checks an ONNX file against its target, without the target: every export passes through here.

Each rule is a function `(graph, target) -> findings`; its name is that of the table below.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from dfkd_edge.conversion import lint_platform as platform
from dfkd_edge.conversion import lint_quantization as quantization
from dfkd_edge.conversion.graph_view import GraphView, LintFinding, read_model
from dfkd_edge.errors import ConversionError
from dfkd_edge.target_profiles.profile import TargetProfile

Rule = Callable[[GraphView, TargetProfile], Iterator[LintFinding]]

RULES: Mapping[str, Rule] = {
    "opset": platform.check_opset,
    "qdq-format": quantization.check_qdq_format,
    "zero-point": quantization.check_zero_point,
    "scale": quantization.check_scale,
    "activation-scales": quantization.check_activation_scales,
    "weight-scales": quantization.check_weight_scales,
    "int32-bias": quantization.check_int32_bias,
    "quantized-type": quantization.check_quantized_type,
    "residual-add": quantization.check_residual_add,
    "concat-scales": quantization.check_concat_scales,
    "narrow-conv": quantization.check_narrow_conv,
    "no-int8-hardware": quantization.check_no_int8_hardware,
    "dla": platform.check_dla,
    "graph-precision": platform.check_graph_precision,
    "int64-border": platform.check_int64_border,
    "sparse-weights": platform.check_sparse_weights,
    "operators": platform.check_operators,
    "one-file": platform.check_one_file,
}


def lint_model(path: Path, target: TargetProfile) -> list[LintFinding]:
    """Run every rule on an ONNX file.

    Returns:
        Findings in the order of the rules; empty when there is nothing to say.

    Raises:
        ConversionError: the file is no ONNX model.
    """
    view = GraphView(read_model(path))
    return [finding for rule in RULES.values() for finding in rule(view, target)]


def refuse_errors(findings: Iterable[LintFinding], path: Path) -> None:
    """Stop when a finding is an error.

    Raises:
        ConversionError: names the first error's rule and node, and how many there are.
    """
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        first = errors[0]
        more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
        raise ConversionError(
            f"lint rule {first.rule} at {first.node}: {first.message}{more}", where=str(path)
        )
