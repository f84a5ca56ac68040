"""How often each interval that the tool prints holds the truth, in experiments that know it.

    python tests/benchmarks/interval_coverage.py --experiments 1000

An interval of 95% must hold it in 95 of 100 experiments or more, whatever the pictures; where there
are many of them it may do so in 98 at most, or it is wider than it need be. Small numbers of
pictures, and truths at the border, take few values: there the share is often 100.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfkd_edge.results.certainty import Certainty, difference
from dfkd_edge.runtime.share_interval import drop_interval, exact_interval, mean_interval
from dfkd_edge.validation.statistics import paired_drop, share_interval

NOMINAL, MOST = 0.95, 0.98
CHANCE = 3.3
"""Standard deviations of the simulation itself; one row of a thousand is beyond them by chance."""
MANY = 400  # Pictures: an interval must be tight, too
SEEN = 25  # Right and wrong ones among them: fewer take too few values for that
Flags = NDArray[np.bool_]
Ends = tuple[float, float]


@dataclass(frozen=True)
class Row:
    """One kind of experiment: what is printed of it, and what is true."""

    interval: str  # Where the tool prints it
    pictures: str  # Of what kind and how many
    is_large: bool  # Whether there are so many that the interval must be tight, too
    truth: float
    experiment: Callable[[np.random.Generator], Ends]  # Draws pictures and returns the interval


@dataclass(frozen=True)
class Result:
    """How often the truth was held."""

    row: Row
    share: float
    num: int
    width: float

    @property
    def verdict(self) -> str:
        """Whether that is as often as it must be, but for the chance of the simulation."""
        if self.share < NOMINAL - CHANCE * (NOMINAL * (1 - NOMINAL) / self.num) ** 0.5:
            return "TOO NARROW"
        most = MOST + CHANCE * (MOST * (1 - MOST) / self.num) ** 0.5
        return "TOO WIDE" if self.row.is_large and self.share > most else "ok"


def measure(row: Row, num: int, seed: int = 0) -> Result:
    """Repeat an experiment."""
    rng, held, width = np.random.default_rng(seed), 0, 0.0
    for _ in range(num):
        low, high = row.experiment(rng)
        held += low - 1e-12 <= row.truth <= high + 1e-12
        width += high - low
    return Result(row, held / num, num, width / num)


def drawn(
    rng: np.random.Generator, kind: str, share: float, num_pictures: int, num_views: int
) -> Flags:
    """Draw which views are right, [pictures, views]; the mean over both is `share`."""
    once = (num_pictures, 1)
    if kind == "alike":  # all views of a picture are right, or all are wrong
        return np.repeat(rng.random(once) < share, num_views, 1)
    chance: float | NDArray[np.floating[Any]] = share
    if kind == "akin":  # their correlation is a third
        chance = rng.beta(2 * share, 2 * (1 - share), once)
    if kind == "rare":  # two pictures in a hundred are wrong in every view, the others seldom
        chance = share / 0.98 * (rng.random(once) > 0.02)
    return np.asarray(rng.random((num_pictures, num_views)) < chance)


def _is_large(num_pictures: int, *shares: float) -> bool:
    seen = (num_pictures * min(share, 1 - share) for share in shares)
    return num_pictures >= MANY and min(seen) >= SEEN


def shares() -> Iterator[Row]:
    """Top-1 and agreement of one domain, host and device; views are of surrogates alone."""
    for num, share in itertools.product(
        (1, 3, 10, 30, 100, 1_000), (0.0, 0.1, 0.5, 0.9, 0.98, 1.0)
    ):

        def once(rng: np.random.Generator, num: int = num, share: float = share) -> Ends:
            return exact_interval(rng.binomial(num, share) / num, num)

        what = f"{num:,} pictures, {share:.0%} right"
        yield Row("share, shown once", what, _is_large(num, share), share, once)
    kinds = (("apart", 0.9), ("alike", 0.9), ("akin", 0.9), ("akin", 0.5), ("rare", 0.96))
    for num, (kind, share) in itertools.product((1, 3, 10, 30, 100, 600), kinds):

        def views(
            rng: np.random.Generator, num: int = num, kind: str = kind, share: float = share
        ) -> Ends:
            right = drawn(rng, kind, share, num, 6)
            found = share_interval(right.ravel(), np.repeat(np.arange(num), 6))
            return found.low, found.high

        what = f"{num:,} pictures, 6 views that err {kind}, {share:.0%} right"
        yield Row("share, views", what, _is_large(num, share), share, views)


def means() -> Iterator[Row]:
    """The mean over domains: of separate pictures, or of the same ones in every domain."""
    for num, parts in itertools.product((5, 30, 600), ((0.9, 0.6), (0.98, 0.9, 0.7, 0.5), (1, 1))):

        def apart(
            rng: np.random.Generator, num: int = num, parts: tuple[float, ...] = parts
        ) -> Ends:
            counted = [rng.binomial(num, share) / num for share in parts]
            return mean_interval([(s, *exact_interval(s, num)) for s in counted])[1:]

        what = f"{len(parts)} domains of {num:,} pictures, {'/'.join(f'{s:.0%}' for s in parts)}"
        truth = sum(parts) / len(parts)
        yield Row("mean, domains apart", what, _is_large(num, *parts), truth, apart)
    for num, kind in itertools.product((5, 30, 600), ("apart", "alike", "akin")):

        def shared(rng: np.random.Generator, num: int = num, kind: str = kind) -> Ends:
            right = drawn(rng, kind, 0.9, num, 5)
            pictures, domains = np.repeat(np.arange(num), 5), np.tile(np.arange(5), num)
            found = share_interval(right.ravel(), pictures, domains)
            return found.low, found.high

        what = f"5 domains of the same {num:,} pictures that err {kind}, 90% right"
        yield Row("mean, domains shared", what, _is_large(num, 0.9), 0.9, shared)


LOSSES = ((0.0, 0.0), (0.02, 0.0), (0.02, 0.01), (0.05, 0.05), (0.3, 0.1), (1.0, 0.0))
"""Shares of the pictures that are right before and wrong after, and the reverse."""


def _changes(rng: np.random.Generator, num: int, lost: float, won: float) -> tuple[Flags, Flags]:
    fate = rng.choice(3, num, p=[lost, won, 1 - lost - won])
    return np.asarray(fate != 1), np.asarray(fate != 0)


def losses() -> Iterator[Row]:
    """What a conversion loses: the gate, each step, and the gain over a baseline."""
    for num, (lost, won) in itertools.product((3, 10, 60, 1_500), LOSSES):

        def once(rng: np.random.Generator, num: int = num, p: Ends = (lost, won)) -> Ends:
            found = paired_drop(*_changes(rng, num, *p)).drop
            return found.low, found.high

        what, is_large = f"{num:,} pictures, {lost:.0%} lost, {won:.0%} won", num >= MANY
        is_large &= num * (lost + won) >= SEEN and lost < 1
        yield Row("loss, shown once", what, is_large, lost - won, once)
    for num, kind in itertools.product((3, 10, 60, 600), ("apart", "alike", "akin", "rare")):

        def views(rng: np.random.Generator, num: int = num, kind: str = kind) -> Ends:
            after = drawn(rng, kind, 0.94, num, 6).ravel()
            pictures = np.repeat(np.arange(num), 6)
            found = paired_drop(np.ones_like(after), after, pictures).drop
            return found.low, found.high

        what = f"{num:,} pictures, 6 views that change {kind}, 6% lost"
        yield Row("loss, views", what, _is_large(num, 0.06), 0.06, views)
    for num, is_shared in itertools.product((5, 60, 600), (False, True)):

        def domains(rng: np.random.Generator, num: int = num, is_shared: bool = is_shared) -> Ends:
            fates = [_changes(rng, num, *p) for p in ((0.02, 0.01), (0.05, 0.05), (0.3, 0.1))]
            before, after = (np.concatenate(one) for one in zip(*fates, strict=True))
            domain = np.repeat(np.arange(3), num)
            pictures = np.tile(np.arange(num), 3) if is_shared else None
            found = paired_drop(before, after, pictures, domain).drop
            return found.low, found.high

        whose = "the same" if is_shared else "separate"
        yield Row(
            "loss, mean", f"3 domains of {num:,} {whose} pictures", num >= MANY, 0.21 / 3, domains
        )


def gains() -> Iterator[Row]:
    """What real pictures brought: two students on the same images, or of an earlier version."""
    for num, (lost, won) in itertools.product((5, 60, 1_500), ((0.02, 0.05), (0.1, 0.2))):

        def paired(rng: np.random.Generator, num: int = num, p: Ends = (lost, won)) -> Ends:
            lost, won, _ = rng.multinomial(num, [*p, 1 - sum(p)]) / num
            return drop_interval(won, lost, num)[1:]

        what = f"{num:,} pictures, {lost:.0%} lost, {won:.0%} won"
        yield Row("gain, same images", what, num >= MANY, won - lost, paired)
    for num, (after, before) in itertools.product((5, 60, 1_500), ((0.7, 0.6), (0.97, 0.95))):

        def separate(rng: np.random.Generator, num: int = num, p: Ends = (after, before)) -> Ends:
            told = [
                Certainty("student", "top1", share, *exact_interval(share, num), num, num)
                for share in (rng.binomial(num, one) / num for one in p)
            ]
            return difference(*told)[1:]

        what = f"twice {num:,} pictures, {after:.0%} and {before:.0%} right"
        yield Row("gain, other images", what, num >= MANY, after - before, separate)


def all_rows() -> Iterator[Row]:
    """Every kind of experiment."""
    yield from (*shares(), *means(), *losses(), *gains())


def main() -> None:
    """Print the table; exit 1 if an interval falls short."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=1_000)
    parser.add_argument("--only", default="", help="Rows whose interval is named so.")
    given = parser.parse_args()
    print("| interval | experiment | held | mean width | |\n|---|---|---|---|---|")
    fell_short = 0
    for row in all_rows():
        if given.only not in row.interval:
            continue
        result = measure(row, given.experiments)
        fell_short += result.verdict != "ok"
        size = " (many)" if row.is_large else ""
        print(
            f"| {row.interval} | {row.pictures}{size} | {result.share:.1%} "
            f"| {100 * result.width:.2f} | {result.verdict} |",
            flush=True,
        )
    sys.exit(fell_short > 0)


if __name__ == "__main__":
    main()
