"""Distillation: (teacher, surrogate images) -> student."""

from dfkd_edge.distillation.distill import distill

__all__ = ["distill"]
