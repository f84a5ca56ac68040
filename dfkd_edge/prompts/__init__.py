"""Prompt diversification: class names -> PromptSet."""

from dfkd_edge.prompts.diversify import diversify_prompts, require_styles

__all__ = ["diversify_prompts", "require_styles"]
