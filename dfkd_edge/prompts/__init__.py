"""Prompt diversification: class names -> PromptSet."""

from dfkd_edge.prompts.diversify import diversify_prompts

__all__ = ["diversify_prompts"]
