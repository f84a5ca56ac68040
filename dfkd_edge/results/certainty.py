"""How sure a measured figure is: its interval, the pictures behind it, and when they are too few.

Three pictures that are all right are not certain: every interval here leaves room for what so many
pictures cannot exclude, and tests/benchmarks/interval_coverage.py measures how often each holds.
"""

import math
from dataclasses import dataclass

from dfkd_edge.results.ladder import Ladder
from dfkd_edge.results.wording import CLEAN_AND_CORRUPTED, METRICS, Metric, shown_text
from dfkd_edge.runtime import share_interval
from dfkd_edge.runtime.share_interval import (
    TOO_FEW_WITHIN,
    drop_interval,
    interval_text,
    mean_interval,
)


@dataclass(frozen=True, slots=True)
class Certainty:
    """The figure of a rung, in the mean over domains, and how much can be made of it."""

    rung: str
    metric: Metric
    share: float
    low: float
    high: float
    num_images: int  # Shown, in all domains and views
    num_pictures: int  # Different ones among these
    is_corrupted: bool = False  # Whether corrupted images are among them, in domains of their own

    @property
    def is_too_wide(self) -> bool:
        """Whether so few pictures tell little; agreement on surrogates claims no accuracy."""
        return self.metric == "top1" and share_interval.is_too_wide(self.low, self.high)

    @property
    def images(self) -> str:
        """How many images there are, in words."""
        if self.metric == "top1":
            return shown_text(self.num_images, self.num_pictures, "labelled picture")
        kind = CLEAN_AND_CORRUPTED if self.is_corrupted else "clean"
        return shown_text(self.num_images, self.num_pictures, "surrogate image", kind)

    def sentence(self) -> str:
        """Say all of it in one line."""
        figure = f"{self.rung} {100 * self.share:.1f}% {METRICS[self.metric]}"
        warning = f": {TOO_FEW_WITHIN}" if self.is_too_wide else ""
        return f"{figure}, {interval_text(self.low, self.high)}, on {self.images}{warning}"


def certainty_of(ladder: Ladder) -> Certainty:
    """Sum up what the last rung reached: the one that is shipped."""
    metric = ladder.metric
    figures = [(part.share(metric), *part.interval(metric)) for part in ladder.counted]
    if ladder.shipped.mean_interval:
        mean_and_ends = (ladder.mean(ladder.shipped), *ladder.shipped.mean_interval)
    else:  # of an earlier version: errors on surrogates shown in every domain may not cancel out
        mean_and_ends = mean_interval(figures, is_shared=metric == "agreement")
    shown = (ladder.num_images, ladder.num_pictures, ladder.is_corrupted)
    return Certainty(ladder.shipped.name, metric, *mean_and_ends, *shown)


def whole_text(ladder: Ladder) -> str:
    """State the figure on images that are shown whole and count in no mean, as `distill` does."""
    apart = set(ladder.shown_domains) - set(ladder.mean_over) - set(ladder.collapsed)
    shares = (ladder.shipped.domains[name].share(ladder.metric) for name in sorted(apart))
    return "".join(f"; whole, as distill shows them: {100 * share:.1f}%" for share in shares)


def gain_text(ours: Ladder, theirs: Ladder) -> str:
    """Compare two students in points; empty where they were shown other images."""
    shown, as_shown = (
        {name: part.num_images for name, part in ladder.shipped.domains.items()}
        for ladder in (ours, theirs)
    )
    if shown != as_shown:
        return ""
    gain, low, high = (100 * end for end in gain_interval(ours, theirs))
    chance = ", may be chance" if low <= 0 <= high else ""
    figure = f"{gain:+.1f} points of mean {METRICS[ours.metric]} over zero-shot"
    return f"{figure} ({low:+.1f} to {high:+.1f}{chance})"


def gain_interval(ours: Ladder, theirs: Ladder) -> tuple[float, float, float]:
    """Gain of one student over another with its ends, image by image where both saw the same."""
    if not (ours.right and theirs.right and ours.right.shown == theirs.right.shown):
        return difference(certainty_of(ours), certainty_of(theirs))
    parts = []
    for domain in ours.mean_over:
        num = ours.shipped.domains[domain].num_images
        lost, won = ours.right.changes(theirs.right, domain)
        parts.append(drop_interval(won / num, lost / num, num))  # a gain is a drop turned around
    return mean_interval(parts)


def difference(after: Certainty, before: Certainty) -> tuple[float, float, float]:
    """Gain of one figure over another with its ends (Newcombe 1998, his method 10).

    The interval is that of separate pictures; on the same ones, of which earlier versions kept no
    record, it is too wide rather than too narrow.
    """
    gain = after.share - before.share
    below = math.hypot(after.share - after.low, before.high - before.share)
    above = math.hypot(after.high - after.share, before.share - before.low)
    return gain, gain - below, gain + above
