"""Distillation: (teacher, surrogate images) -> student."""

from dfkd_edge.distillation.distill import distill, require_images

__all__ = ["distill", "require_images"]
