"""Pack what the teacher sees in the memory: embeddings of the drawings and of their names.

Both are part of the package, so no user's machine has to look at them again.
"""

from __future__ import annotations

import torch

from dfkd_edge.artifacts import save_tensors
from dfkd_edge.assets import EXEMPLARS
from dfkd_edge.class_names import parse_class_names
from dfkd_edge.config import TeacherConfig
from dfkd_edge.mixed_precision import has_fast_bfloat16
from dfkd_edge.synthesis.exemplars import (
    SEEN_FILE,
    distinct_names,
    embed_drawings,
    embed_names,
    read_sheets,
)
from dfkd_edge.teacher import load_teacher


def main() -> None:
    """Embed the memory in float32 and write it as float16."""
    teacher = load_teacher(TeacherConfig(), parse_class_names("thing\nanimal", "none"))
    sheets = read_sheets()
    if has_fast_bfloat16("cpu"):
        raise SystemExit("this CPU would see in bfloat16: run it with ONEDNN_MAX_CPU_ISA=AVX2")
    seen = {
        "names": embed_names(list(distinct_names(sheets)), teacher),
        "drawings": torch.cat([embed_drawings(sheet, teacher) for sheet in sheets]),
    }
    packed = {key: rows.to(torch.float16).numpy() for key, rows in seen.items()}
    save_tensors(EXEMPLARS / SEEN_FILE, packed)
    print({key: rows.shape for key, rows in packed.items()})


if __name__ == "__main__":
    main()
