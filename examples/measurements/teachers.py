"""Counts the teachers that `dfkd-edge teachers list` shows, and writes its table.

Every architecture is built on the meta device: no weights, no network, a minute in all. Those whose
text tower is described on the hub alone (`hf-hub` and the RoBERTa towers) are left out.

    python examples/measurements/teachers.py [OUTPUT.json]
"""

import json
import sys
from pathlib import Path

import open_clip

from dfkd_edge.config.settings import TeacherConfig
from dfkd_edge.errors import EnvironmentLackingError
from dfkd_edge.networks.teacher import activation_options, open_clip_name
from dfkd_edge.networks.teacher_table import TABLE, family_of
from dfkd_edge.networks.weights import shapes_of_teacher


def counted(name: str, tag: str) -> dict[str, object]:
    """Make one row of the table."""
    config = TeacherConfig(name=name, pretrained=tag)
    model = shapes_of_teacher(open_clip_name(config)[0])
    side = model.visual.image_size
    return {
        "name": name,
        "tag": tag,
        "num_image_parameters": sum(p.numel() for p in model.visual.parameters()),
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "image_size_px": side if isinstance(side, int) else side[0],
        "activation": "quickgelu" if activation_options(config).get("quick_gelu") else "gelu",
    }


def main() -> None:
    """Write the table; a name is built once for all its tags."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else TABLE
    rows, known = [counted("mini", "")], dict[str, dict[str, object] | None]()
    for name, tag in open_clip.list_pretrained():
        # the twins of QuickGELU add nothing: the tag says the activation
        if not family_of(name, tag) or name.endswith("-quickgelu"):
            continue
        if name not in known:
            try:
                known[name] = counted(name, tag)
            except EnvironmentLackingError as error:
                print(f"left out: {name}: {error.what}")
                known[name] = None
        if first := known[name]:
            config = TeacherConfig(name=name, pretrained=tag)
            is_quick = bool(activation_options(config).get("quick_gelu"))
            rows.append({**first, "tag": tag, "activation": "quickgelu" if is_quick else "gelu"})
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print(f"{len(rows)} teachers, open_clip {open_clip.__version__}: {path}")


if __name__ == "__main__":
    main()
