"""Synthesis: (prompts, teacher) -> surrogate images."""

from dfkd_edge.synthesis.amortized import synthesize

__all__ = ["synthesize"]
