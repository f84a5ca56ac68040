"""Which candidates were kept as surrogate images: where it is written, and the words for it.

*Recognised* is a candidate, before the filter, that the teacher gives the class asked for: the
`acceptance` of a summary is their share. A *stand-in* is kept though it is not recognised.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def selection_path(folder: Path) -> Path:
    """Where it is written which candidates are kept, and which of these are held out."""
    return folder / "selection.safetensors"


def stand_ins_text(summary: Mapping[str, Any]) -> str:
    """Say how many of the kept images are stand-ins; empty where there are none.

    A class that the teacher hardly recognises keeps its likeliest images all the same. An older
    summary counts recognised candidates alone, of which every one was kept.
    """
    recognised = round(summary["acceptance"] * summary["num_candidates"])
    num = summary.get("num_stand_ins", summary["num_images"] - recognised)
    if num <= 0:
        return ""
    return f"{num:,} of them stand-ins, which the teacher takes for another class"
