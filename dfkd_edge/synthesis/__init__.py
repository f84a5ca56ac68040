"""Synthesis: (prompts, teacher) -> surrogate images."""

from dfkd_edge.synthesis.synthesize import require_synthesizer, synthesize

__all__ = ["require_synthesizer", "synthesize"]
