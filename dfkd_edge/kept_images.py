"""What a summary of surrogates tells of the images that were kept, in words.

*Recognised* is a candidate, before the filter, that the teacher gives the class asked for: the
`acceptance` of a summary is their share. A *stand-in* is kept though it is not recognised.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


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
