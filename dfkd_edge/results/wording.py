"""The words for what is counted, the same in tables, panels, reports and errors."""

from typing import Literal

from dfkd_edge.runtime.counting import counted

Metric = Literal["top1", "agreement"]
METRICS: dict[Metric, str] = {"top1": "top-1", "agreement": "agreement with the teacher"}
UNITS: dict[Metric, str] = {"top1": "picture", "agreement": "image"}
"""What is counted: labelled pictures, or images that were made."""
CLEAN_AND_CORRUPTED = "clean and corrupted"


def shown_text(num_images: int, num_pictures: int, noun: str, kind: str = "") -> str:
    """Write `943 pictures`, or `1,200 views of 943 pictures` where some were shown repeatedly.

    Args:
        num_images: shown.
        num_pictures: different ones among these.
        noun: what a picture is called.
        kind: what sort of images were shown, such as `clean`.
    """
    kind = f"{kind} " if kind else ""
    if num_images > num_pictures:
        return f"{num_images:,} {kind}views of {counted(num_pictures, noun)}"
    return counted(num_pictures, f"{kind}{noun}")


def points_text(share: float) -> str:
    """Write a share as percentage points."""
    return f"{100 * share:g} point{'s' * (share != 0.01)}"


def times_text(before: float, after: float, less: str, more: str) -> str:
    """Write how many times a figure has become less or more, such as `3.1 times smaller`."""
    if after <= before:
        return f"{before / after:.1f} times {less}"
    return f"{after / before:.1f} times {more}"
