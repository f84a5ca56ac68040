"""A run's images under other names than those that they were made for, and what these cost.

Shape suffixes: N images, D embedding width, K classes.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from dfkd_edge.artifacts import Ints, SurrogateSet
from dfkd_edge.class_names import folded
from dfkd_edge.interfaces import Reporter
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.results.swap import KeptCost
from dfkd_edge.runs.row_stores import blocks
from dfkd_edge.validation.evaluation_images import VIEWS_DOMAIN
from dfkd_edge.validation.ladder import Rung, climb
from dfkd_edge.validation.rungs import Proof
from dfkd_edge.validation.statistics import paired_drop

READ_TOGETHER = 512  # Embeddings in memory at a time
GONE = -1  # Place of a class that another list does not have


def places(names: Sequence[str], listed: Sequence[str]) -> Ints:
    """Where each name stands in another list, [K]; GONE where it does not."""
    where = {folded(name): place for place, name in enumerate(listed)}
    return np.array([where.get(folded(name), GONE) for name in names], np.int64)


def in_names_of(teacher: Teacher, surrogates: SurrogateSet, learnt: Sequence[str]) -> SurrogateSet:
    """Label a run's images anew: the class asked for where the list still has it, else what the
    teacher sees in the image.

    Args:
        teacher: with the head of the new list.
        surrogates: of the run.
        learnt: its classes.
    """
    label_N = places(learnt, teacher.classes.names)[surrogates.class_index]
    for row_R in blocks(np.flatnonzero(label_N == GONE), READ_TOGETHER):
        embedding_RD = torch.from_numpy(surrogates.embeddings.rows(row_R)).to(teacher.device)
        label_N[row_R] = teacher.logits(embedding_RD).argmax(1).cpu().numpy()
    return replace(surrogates, class_index=label_N)


@dataclass(frozen=True, slots=True)
class Lists:
    """The class lists of a swap."""

    learnt: tuple[str, ...]  # Of the run
    before: tuple[str, ...]  # Of the bundle that was swapped
    after: tuple[str, ...]


def kept_cost(
    before: Rung, proof: Proof, lists: Lists, asked: Ints, reporter: Reporter
) -> KeptCost | None:
    """Compare what ships with what shipped before, on clean views of classes in both lists.

    Args:
        before: the last rung of the bundle that was swapped.
        proof: of the new list; its last rung ships.
        lists: all three.
        asked: the run's class that each surrogate image was made for.
        reporter: shows the bar.
    """
    shown, part = proof.evaluation.only([VIEWS_DOMAIN]), proof.predictions.domains[VIEWS_DOMAIN]
    asked_N = asked[part.pictures]  # a picture's number is its row
    was_N, is_N = (places(lists.learnt, names)[asked_N] for names in (lists.before, lists.after))
    kept_N = (was_N != GONE) & (is_N != GONE)
    if not kept_N.any():
        return None
    with reporter.stage("comparing with the earlier list", shown.num_images) as progress:
        earlier = climb([before], shown, frozenset(), progress).domains[VIEWS_DOMAIN]
    answer_N = part.guess(proof.rungs[-1].name)
    before_N = (earlier.guess(before.name) == was_N)[kept_N]
    after_N = (answer_N == is_N)[kept_N]
    lost = paired_drop(before_N, after_N, part.pictures[kept_N])
    taken_N = before_N & ~after_N
    pairs = zip(asked_N[kept_N][taken_N], answer_N[kept_N][taken_N], strict=True)
    taken = Counter(f"{lists.learnt[a]} to {lists.after[b]}" for a, b in pairs if b >= 0)
    return KeptCost(
        before=float(before_N.mean()),
        after=float(after_N.mean()),
        interval=(lost.drop.low, lost.drop.high),
        num_images=lost.num_images,
        num_pictures=lost.num_pictures,
        taken_by=tuple(pair for pair, _ in taken.most_common()),
    )
