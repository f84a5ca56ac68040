"""Which classes of a list the teacher cannot tell apart, told before anything is made.

Shape suffixes: K classes, B classes of a block, D embedding width.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from dfkd_edge.class_lint.scale import measure_scale
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.runtime.counting import first_few

BLOCK = 1_000  # Classes compared with all others at a time: 10,000 of them take 40 MB
MAX_PAIRS = 3  # Of a line


def look_alikes_text(teacher: Teacher) -> str:
    """Say how many classes mean the same as another one, and name some; empty for none."""
    synonyms = measure_scale(teacher, teacher.config.templates).synonyms
    found = nearest_rows(teacher.head_KD)
    nearest = {one: other for one, other, cosine in found if cosine >= synonyms}
    if not nearest:
        return ""
    names = teacher.classes.names
    pairs = {(min(pair), max(pair)) for pair in nearest.items()}
    shown = [f"'{names[one]}' and '{names[other]}'" for one, other in sorted(pairs)]
    return (
        f"{len(nearest)} of {len(names)} classes mean the same as another one to the teacher: "
        f"{first_few(shown, MAX_PAIRS)}; merge them, or give prompts that differ, as "
        "dfkd-edge classes lint says"
    )


def nearest_rows(head_KD: Tensor) -> Iterator[tuple[int, int, float]]:
    """Find for each unit row the one nearest to it, and its cosine; none for one alone."""
    if len(head_KD) < 2:
        return
    for start in range(0, len(head_KD), BLOCK):
        cosine_BK = head_KD[start : start + BLOCK] @ head_KD.T
        row_B = torch.arange(len(cosine_BK), device=cosine_BK.device)
        cosine_BK[row_B, start + row_B] = -1
        value_B, other_B = cosine_BK.max(1)
        for row, (other, value) in enumerate(zip(other_B.tolist(), value_B.tolist(), strict=True)):
            yield start + row, other, value
