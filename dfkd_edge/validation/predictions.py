"""What every rung of a ladder answered on equal images, domain by domain, and paired comparisons.

Shape suffixes: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dfkd_edge.results.ladder import HELDOUT_DOMAIN, TEACHER
from dfkd_edge.results.wording import Metric
from dfkd_edge.validation.evaluation_images import VIEWS_DOMAIN
from dfkd_edge.validation.statistics import (
    Interval,
    PairedDrop,
    find_collapse,
    paired_drop,
    share_interval,
)

Logits = NDArray[np.float32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class DomainPredictions:
    """What every rung said about the images of one domain."""

    labels: NDArray[np.int64]  # [N]
    pictures: NDArray[np.int64]  # [N], the picture that each image is a view of
    logits: dict[str, Logits]  # Rung -> [N, K], in the order of the ladder

    def extended(self, other: DomainPredictions) -> DomainPredictions:
        """Add the images of another part of the domain."""
        return DomainPredictions(
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.pictures, other.pictures]),
            {name: np.concatenate([own, other.logits[name]]) for name, own in self.logits.items()},
        )

    def guess(self, rung: str) -> NDArray[np.int64]:
        """Top-1 class of each image, -1 where the logits are not finite."""
        logits_NK = self.logits[rung]
        finite_N = np.isfinite(logits_NK).all(1)
        # argmax would take a NaN for the largest
        guess_N: NDArray[np.int64] = np.where(finite_N, np.nan_to_num(logits_NK).argmax(1), -1)
        return guess_N

    def right(self, rung: str, metric: Metric) -> Flags:
        """Which images count as right: true class, or the teacher's."""
        flags: Flags = self.guess(rung) == self.expected(metric)
        return flags

    def expected(self, metric: Metric) -> NDArray[np.int64]:
        """What counts as right: the true class of each image, or the teacher's."""
        return self.labels if metric == "top1" else self.guess(TEACHER)


@dataclass(frozen=True, slots=True)
class Predictions:
    """What every rung said about every image."""

    metric: Metric
    domains: dict[str, DomainPredictions]
    unreadable: list[Path] = field(default_factory=list)

    @property
    def rungs(self) -> tuple[str, ...]:
        """Names of the rungs, from the teacher on."""
        return tuple(next(iter(self.domains.values())).logits)

    @property
    def judged(self) -> tuple[str, ...]:
        """Domains that the gate judges: held-out images count by their views, or not at all beside
        labelled pictures.
        """
        is_apart = self.metric == "top1" or VIEWS_DOMAIN in self.domains
        return tuple(name for name in self.domains if not (is_apart and name == HELDOUT_DOMAIN))

    def metric_of(self, domain: str) -> Metric:
        """What counts as right in a domain: surrogates have no label beside labelled pictures."""
        return "agreement" if domain == HELDOUT_DOMAIN else self.metric

    @property
    def collapsed(self) -> dict[str, tuple[int, float]]:
        """Domains in which agreement says little, for the teacher hardly tells classes apart, with
        its most frequent answer there and the share of that.
        """
        clean = self.domains.get(HELDOUT_DOMAIN)
        if self.metric == "top1" or clean is None:
            return {}
        guesses = {name: self.domains[name].guess(TEACHER) for name in self.judged}
        return find_collapse(clean.guess(TEACHER), guesses)

    @property
    def averaged(self) -> tuple[str, ...]:
        """Domains that count in means: those judged, without the collapsed unless all are."""
        collapsed = self.collapsed
        return tuple(name for name in self.judged if name not in collapsed) or self.judged

    def drop(self, before: str, after: str, *domains: str) -> PairedDrop:
        """What `after` loses against `before` in some domains, in the mean over them."""
        parts = [self.domains[domain] for domain in domains]
        before_N, after_N = (
            np.concatenate([part.right(rung, self.metric) for part in parts])
            for rung in (before, after)
        )
        return paired_drop(before_N, after_N, *_pictures_and_domains(parts))

    def mean_share(self, rung: str) -> Interval:
        """What a rung gets right, in the mean over the domains that count."""
        parts = [self.domains[domain] for domain in self.averaged]
        right_N = np.concatenate([part.right(rung, self.metric) for part in parts])
        return share_interval(right_N, *_pictures_and_domains(parts))

    def extended(self, other: Predictions) -> Predictions:
        """Add what the same rungs said about more images."""
        domains = dict(self.domains)
        for key, part in other.domains.items():
            domains[key] = domains[key].extended(part) if key in domains else part
        return Predictions(self.metric, domains, [*self.unreadable, *other.unreadable])

    def of_rungs(self, *names: str) -> Predictions:
        """Keep what some rungs said, in this order."""
        domains = {
            key: replace(part, logits={name: part.logits[name] for name in names})
            for key, part in self.domains.items()
        }
        return replace(self, domains=domains)

    def with_rung(self, name: str, other: Predictions) -> Predictions:
        """Put one rung of other predictions on the same images in the place of ours."""
        domains = {
            key: replace(part, logits={**part.logits, name: other.domains[key].logits[name]})
            for key, part in self.domains.items()
        }
        return replace(self, domains=domains)


def _pictures_and_domains(
    parts: Sequence[DomainPredictions],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Say of each image of some domains which picture it shows, and its domain's number."""
    picture_N = np.concatenate([part.pictures for part in parts])
    return picture_N, np.repeat(np.arange(len(parts)), [len(part.labels) for part in parts])
