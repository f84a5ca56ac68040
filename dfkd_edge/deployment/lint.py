"""Checks an ONNX file against its target, without the target: every export passes through here.

Each rule is a function `(graph, target) -> findings`; its letter is that of the table below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from dfkd_edge.deployment import lint_platform as platform
from dfkd_edge.deployment import lint_quantization as quantization
from dfkd_edge.deployment.graph_view import GraphView, read_model
from dfkd_edge.deployment.lint_finding import LintFinding
from dfkd_edge.errors import ConversionError
from dfkd_edge.target_profile import TargetProfile

Rule = Callable[[GraphView, TargetProfile], Iterator[LintFinding]]

RULES: Mapping[str, Rule] = {
    "a": platform.rule_a,  # opset and IR
    "b": quantization.rule_b,  # no QOperator format
    "c": quantization.rule_c,  # zero points
    "d": quantization.rule_d,  # scales
    "e": quantization.rule_e,  # activations per tensor
    "f": quantization.rule_f,  # weights per channel
    "g": quantization.rule_g,  # no int32 bias
    "h": quantization.rule_h,  # quantized types
    "i": quantization.rule_i,  # residual adds
    "j": quantization.rule_j,  # concatenations
    "k": quantization.rule_k,  # narrow convolutions
    "l": quantization.rule_l,  # no INT8 hardware
    "m": platform.rule_m,  # DLA
    "n": platform.rule_n,  # precision in the graph
    "o": platform.rule_o,  # INT64 at the border
    "p": platform.rule_p,  # 2:4 sparsity
    "ops": platform.rule_ops,  # operators that exist
    "file": platform.rule_file,  # one file
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
