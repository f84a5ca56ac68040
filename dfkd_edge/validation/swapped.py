"""A run's images under other names than those that they were made for, and what these cost.

Shape suffixes: N images, D embedding width, K classes.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from dfkd_edge.artifacts import Ints, SurrogateSet
from dfkd_edge.class_names import folded
from dfkd_edge.interfaces import Reporter
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.results.swap import TOLD_ABOVE, ClassLoss, KeptCost
from dfkd_edge.runs.row_stores import ChosenRows, blocks
from dfkd_edge.validation.evaluation_images import VIEWS_DOMAIN, StoreSource
from dfkd_edge.validation.ladder import Rung, climb
from dfkd_edge.validation.predictions import DomainPredictions, Flags
from dfkd_edge.validation.rungs import Proof
from dfkd_edge.validation.statistics import SIGNIFICANCE, paired_drop

READ_TOGETHER = 512  # Embeddings in memory at a time
EARLIER = "earlier list"  # Name of the rung that shipped before
PICTURES_A_CLASS = 8
"""A class is judged by so many: all but one lost is hardly chance, six of six is not (ours)."""
MUCH = 0.5  # Loss of a class that is told of however few pictures show it
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


@dataclass(frozen=True, slots=True)
class Kept:
    """What both bundles say of images of classes that are in both lists, [N] each."""

    asked_N: Ints  # The run's class that an image was made for
    answer_N: Ints  # Of the new bundle
    before_N: Flags  # Whether the bundle that was swapped is right
    after_N: Flags
    picture_N: Ints

    def only(self, chosen_N: Flags) -> "Kept":
        """Keep some images."""
        return Kept(*(getattr(self, field.name)[chosen_N] for field in fields(Kept)))


def kept_cost(
    before: Rung, proof: Proof, lists: Lists, surrogates: SurrogateSet, reporter: Reporter
) -> tuple[KeptCost | None, tuple[str, ...]]:
    """Compare what ships with what shipped before, on images of classes in both lists.

    The mean is over clean views of held-out images. Where these show few pictures of a class, both
    see further ones of the run, so that each class is judged by itself, in a long list too.

    Args:
        before: the last rung of the bundle that was swapped.
        proof: of the new list; its last rung ships.
        lists: all three.
        surrogates: of the run, labelled by its own classes.
        reporter: shows the bar.

    Returns:
        The cost, None where no image shows it; and the classes that stay without an image.
    """
    last, views = proof.rungs[-1].name, proof.predictions.domains[VIEWS_DOMAIN]
    shown = proof.evaluation.only([VIEWS_DOMAIN])
    rows = _further_rows(lists, surrogates, views.pictures)
    further = StoreSource(
        VIEWS_DOMAIN, ChosenRows(surrogates.images, rows), surrogates.class_index[rows], rows
    )
    earlier, num_views = replace(before, name=EARLIER), len(views.labels)
    with reporter.stage("comparing with the earlier list", num_views + len(rows)) as progress:
        was = climb([earlier], shown, frozenset(), progress).domains[VIEWS_DOMAIN]
        part = replace(views, logits={**was.logits, last: views.logits[last]})
        if len(rows):
            both, more = (earlier, proof.rungs[-1]), replace(shown, sources=(further,))
            seen = climb(both, more, frozenset(), progress)
            part = part.extended(seen.domains[VIEWS_DOMAIN])
    kept, is_view_N = _kept(part, last, lists, surrogates.class_index, num_views)
    stay = [name for name, place in zip(lists.after, _stays(lists), strict=True) if place != GONE]
    seen_names = {folded(lists.learnt[place]) for place in np.unique(kept.asked_N)}
    unmeasured = tuple(name for name in stay if folded(name) not in seen_names)
    return (_cost(kept, is_view_N, lists) if len(kept.asked_N) else None), unmeasured


def _stays(lists: Lists) -> Ints:
    """Where each class of the new list stands in the earlier one; GONE where it does not."""
    return places(lists.after, lists.before)


def _further_rows(lists: Lists, surrogates: SurrogateSet, shown: Ints) -> Ints:
    """Choose images of the run for classes that few pictures show, held-out ones first."""
    both = [places(lists.learnt, names) != GONE for names in (lists.before, lists.after)]
    unseen_N = np.ones(len(surrogates.class_index), np.bool_)
    unseen_N[shown] = False
    seen_K = np.bincount(surrogates.class_index[~unseen_N], minlength=len(lists.learnt))
    chosen = [np.zeros(0, np.int64)]
    for place in np.flatnonzero(both[0] & both[1] & (seen_K < PICTURES_A_CLASS)):
        rows = np.flatnonzero(unseen_N & (surrogates.class_index == place))
        rows = rows[np.argsort(~surrogates.is_heldout[rows], kind="stable")]
        chosen.append(rows[: PICTURES_A_CLASS - seen_K[place]])
    return np.concatenate(chosen)


def _kept(
    part: DomainPredictions, last: str, lists: Lists, class_index: Ints, num_views: int
) -> tuple[Kept, Flags]:
    """Keep what shows classes of both lists, and say which of it are views of held-out images."""
    asked_N, answer_N = class_index[part.pictures], part.guess(last)
    was_N, is_N = (places(lists.learnt, names)[asked_N] for names in (lists.before, lists.after))
    right = (part.guess(EARLIER) == was_N, answer_N == is_N)
    kept_N = (was_N != GONE) & (is_N != GONE)
    is_view_N = np.arange(len(kept_N)) < num_views
    return Kept(asked_N, answer_N, *right, part.pictures).only(kept_N), is_view_N[kept_N]


def _cost(kept: Kept, is_view_N: Flags, lists: Lists) -> KeptCost:
    """Sum up, over the views where there are some."""
    pooled = kept.only(is_view_N) if is_view_N.any() else kept
    lost = paired_drop(pooled.before_N, pooled.after_N, pooled.picture_N)
    pairs = Counter(
        f"{lists.learnt[asked]} to {lists.after[answer]}" for asked, answer in _taken(pooled)
    )
    return KeptCost(
        before=float(pooled.before_N.mean()),
        after=float(pooled.after_N.mean()),
        interval=(lost.drop.low, lost.drop.high),
        num_images=lost.num_images,
        num_pictures=lost.num_pictures,
        taken_by=tuple(pair for pair, _ in pairs.most_common()),
        lost=_class_losses(kept, lists),
    )


def _taken(kept: Kept) -> Iterator[tuple[int, int]]:
    """Class asked for and the answer, of each image that was right and is no more."""
    taken_N = kept.before_N & ~kept.after_N & (kept.answer_N >= 0)
    yield from zip(kept.asked_N[taken_N].tolist(), kept.answer_N[taken_N].tolist(), strict=True)


def _class_losses(kept: Kept, lists: Lists) -> tuple[ClassLoss, ...]:
    """Find the classes that lose more than chance, or half of their images, most first."""
    found = list[tuple[float, ClassLoss]]()
    for place in np.unique(kept.asked_N).tolist():
        mine = kept.only(kept.asked_N == place)
        lost = paired_drop(mine.before_N, mine.after_N, mine.picture_N)
        is_sure = lost.drop.mean > TOLD_ABOVE and lost.p_value < SIGNIFICANCE
        if is_sure or lost.drop.mean >= MUCH:
            takers = Counter(lists.after[answer] for _, answer in _taken(mine)).most_common(1)
            loss = ClassLoss(
                name=lists.learnt[place],
                taken_by=takers[0][0] if takers else "",
                before=int(mine.before_N.sum()),
                after=int(mine.after_N.sum()),
                num_images=len(mine.asked_N),
            )
            found.append((-lost.drop.mean, loss))
    return tuple(loss for _, loss in sorted(found, key=lambda pair: pair[0]))
