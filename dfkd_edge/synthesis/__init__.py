"""Synthesis: (prompts, teacher) -> surrogate images."""

from dfkd_edge.synthesis.synthesize import synthesize

__all__ = ["synthesize"]
