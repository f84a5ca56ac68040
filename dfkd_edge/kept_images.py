"""What a summary of surrogates tells of the images that were kept, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def recognised_text(summary: Mapping[str, Any]) -> str:
    """Say how many of the kept images the teacher recognises; empty where it is all of them.

    A class that it hardly recognises keeps its likeliest images all the same. An older summary
    counts among the candidates, of which every recognised one was kept.
    """
    among_candidates = round(summary["acceptance"] * summary["num_candidates"])
    num = summary.get("num_recognised", among_candidates)
    return "" if num >= summary["num_images"] else f"the teacher recognises {num:,} of them"
