"""LICENSES.txt of a bundle: whose work is inside and under which terms."""

from __future__ import annotations

from typing import Any

from dfkd_edge import __version__
from dfkd_edge.students import MINI, STUDENTS


def licenses_text(settings: dict[str, Any]) -> str:
    """State the licences that travel with a bundle.

    Args:
        settings: of the student, as in student.json.
    """
    entry = STUDENTS.get(settings["student"])
    terms = entry.license if entry else "see the model's page in timm"
    lines = [
        "What is in this bundle and under which terms.",
        "",
        f"check.pyz and the graphs' input and output layers: dfkd-edge {__version__}, Apache-2.0",
        f"network: timm {settings['timm_name']}, {terms}",
    ]
    if settings["init"] == "pretrained":
        source = (
            "dfkd-edge's own, Apache-2.0; their training pictures have terms of their own and are "
            "not contained"
            if settings["student"] == MINI
            else f"timm's pretrained weights, {terms}; ImageNet's terms may apply to their use"
        )
        lines.append(f"start weights: {source}")
    lines += [
        f"teacher of the student: {settings['teacher']}; its licence applies to what was learnt",
        "golden images: synthesized; those that show drawings of icon sets are left out",
        "",
    ]
    return "\n".join(lines)
