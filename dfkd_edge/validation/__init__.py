"""Validation: how good the student is, beside its teacher."""

from dfkd_edge.validation.metrics import evaluate

__all__ = ["evaluate"]
