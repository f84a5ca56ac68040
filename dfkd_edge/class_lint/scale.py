"""What a cosine means in a teacher's text space, measured on pairs of everyday words.

Cosines of one CLIP say nothing in another, so no threshold is fixed: synonyms, siblings (fork and
spoon) and unrelated things are embedded by the teacher at hand.

Shape suffixes: K words, D embedding width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dfkd_edge.class_names import ClassNames
from dfkd_edge.networks.teacher import Teacher

SYNONYMS = (
    *(("car", "automobile"), ("sofa", "couch"), ("bicycle", "bike"), ("television", "TV")),
    *(("airplane", "plane"), ("rabbit", "bunny"), ("trousers", "pants"), ("street", "road")),
)
SIBLINGS = (
    *(("dog", "cat"), ("apple", "pear"), ("car", "truck"), ("chair", "table")),
    *(("shirt", "trousers"), ("bus", "train"), ("cow", "horse"), ("spoon", "fork")),
)
SCALE_WORDS = tuple(dict.fromkeys(word for pair in SYNONYMS + SIBLINGS for word in pair))


@dataclass(frozen=True, slots=True)
class Scale:
    """Cosines of pairs of everyday words in one teacher."""

    synonyms: float  # Lower quartile of synonyms: from here on two names count as one
    siblings: float
    """Median of siblings; halfway to synonyms two classes are expected to be mixed up."""
    unrelated: float  # Median of unrelated words

    @property
    def confusing(self) -> float:
        """Cosine from which a pair is reported."""
        return (self.synonyms + self.siblings) / 2


def measure_scale(teacher: Teacher, templates: Sequence[str]) -> Scale:
    """Measure a teacher, whatever its classes are."""
    words = ClassNames(SCALE_WORDS, (None,) * len(SCALE_WORDS))
    row = dict(zip(SCALE_WORDS, teacher.zero_shot_head(words, templates), strict=True))

    def cosines(pairs: Sequence[tuple[str, str]]) -> Tensor:
        return torch.stack([row[one] @ row[two] for one, two in pairs])

    firsts, seconds = [a for a, _ in SYNONYMS], [b for _, b in SIBLINGS]
    unrelated = [(a, b) for a in firsts for b in seconds if a != b]
    return Scale(
        float(cosines(SYNONYMS).quantile(0.25)),
        float(cosines(SIBLINGS).median()),
        float(cosines(unrelated).median()),
    )
