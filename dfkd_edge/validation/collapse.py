"""Does the teacher still tell classes apart? Where it does not, agreement with it says little.

Under strong noise a small teacher may give one answer to nearly everything, and so does a student
that learnt from it: they agree without seeing anything.

Shape suffix: N images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COLLAPSE = 0.5
"""A teacher has collapsed where the entropy of its answers is below this share of that on clean
images (ours). Where classes come equally often, one of two then has 89% of the answers, one of
seven 77%, one of a thousand 60%."""
Answers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Collapse:
    """What a collapsed teacher answers."""

    answer: int
    """Its most frequent class."""
    share: float
    """Of the images."""


def answer_entropy(answer_N: Answers) -> float:
    """Entropy of the distribution of answers, in nats; 0 where there is one answer."""
    share = np.unique(answer_N, return_counts=True)[1] / len(answer_N)
    return float(-(share * np.log(share)).sum())


def find_collapse(clean_N: Answers, domains: Mapping[str, Answers]) -> dict[str, Collapse]:
    """Find the domains in which the answers are far less varied than on clean images.

    Args:
        clean_N: the teacher's answers on clean images.
        domains: name -> its answers there, on the same pictures.
    """
    least = COLLAPSE * answer_entropy(clean_N)
    found = {}
    for name, answer_N in domains.items():
        if answer_entropy(answer_N) < least:
            answers, counts = np.unique(answer_N, return_counts=True)
            most = counts.argmax()
            found[name] = Collapse(int(answers[most]), float(counts[most] / len(answer_N)))
    return found
