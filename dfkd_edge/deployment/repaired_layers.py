"""What repair and fine-tune did to INT8, in words, as the manifest of a bundle records it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dfkd_edge.runtime.counting import counted

WHERE_CHOSEN = "on views to choose by, not the gate's"
"""Said of every figure of the repair: the gate's stand beside them."""


def repair_text(manifest: Mapping[str, Any]) -> str:
    """Say how many layers of the INT8 graph that ships are in float, and why; empty if not mended.

    Args:
        manifest: of a bundle.
    """
    rescue = manifest["provenance"].get("rescue")
    if not rescue:
        return ""
    repair, tuned, notes = rescue["repair"], rescue["finetune"], manifest["model_notes"]["int8"]
    num_float = len(notes.get("float_nodes") or ())
    text = f"{num_float} of {repair['num_quantizable']} layers put back to float"
    if not num_float and repair["float_nodes"]:
        text += ": the fine-tuned student needs none"
    elif not num_float:
        text += f": {why_none(repair['num_graphs'])}"
    if not tuned:
        return text
    steps = counted(tuned["num_steps"], "step")
    return text + (
        f"; fine-tuned for {steps}"
        if notes.get("finetuned")
        else f"; a fine-tune of {steps} lost no less {WHERE_CHOSEN}"
    )


def why_none(num_graphs: int) -> str:
    """Say why a repair leaves all layers in INT8.

    Args:
        num_graphs: that were judged, each with some layers in float.
    """
    if not num_graphs:
        return "no graph could be made with layers in float"
    graphs = f"none of the {num_graphs} graphs tried" if num_graphs > 1 else "the one graph tried"
    return f"{graphs} with layers in float {'loses' if num_graphs > 1 else 'does not lose'} less"
