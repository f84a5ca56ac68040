"""What the shipped rung answers by class, and the classes it fails on."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dfkd_edge.results.ladder import Ladder, MeasuredRung
from dfkd_edge.results.wording import CLEAN_AND_CORRUPTED, Metric
from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.share_interval import exact_interval

WEAK_SHARE = 0.5  # A class is weak where fewer than half of its images are answered right (ours)
MAX_NAMED = 5
REFERENCES: dict[Metric, str] = {"top1": "the true classes", "agreement": "the teacher's answers"}
"""What the answers of a rung are held against."""


@dataclass(frozen=True, slots=True)
class WeakClass:
    """A class that a rung fails on."""

    name: str
    share: float  # Answered right, over all domains
    num_images: int  # Independent ones
    num_shown: int  # In all domains and views
    taken_for: str  # The most frequent wrong answer


def pooled_answers(rung: MeasuredRung, domains: Sequence[str]) -> dict[str, Counter[str]]:
    """Expected class -> answers over some domains."""
    total: dict[str, Counter[str]] = {}
    for domain in domains:
        for expected, answers in rung.domains[domain].confusion.items():
            total.setdefault(expected, Counter()).update(answers)
    return total


def weak_classes(ladder: Ladder) -> list[WeakClass]:
    """Find the classes that the last rung fails on, weakest first.

    A class counts when it is below half and its images are too many for that to be chance: the
    95 % interval of its share ends below the mean over classes. Surrogates come in every domain and
    in several views, so each counts once.
    """
    answers = pooled_answers(ladder.shipped, ladder.mean_over)
    seen = {name: answered for name, answered in answers.items() if answered.total()}
    shares = {name: answered[name] / answered.total() for name, answered in seen.items()}
    mean = sum(shares.values()) / max(len(shares), 1)
    independent = ladder.num_pictures / ladder.num_images  # views of one image err together
    found = []
    for name, share in sorted(shares.items(), key=lambda item: item[1]):
        num_images = max(1, round(seen[name].total() * independent))
        _, most = exact_interval(share, num_images)
        if share < WEAK_SHARE and most < mean:
            (taken_for, _), *_ = (seen[name] - Counter({name: seen[name][name]})).most_common(1)
            found.append(WeakClass(name, share, num_images, seen[name].total(), taken_for))
    return found


def weak_classes_sentence(ladder: Ladder) -> str:
    """Name them with the share answered right, in one line; empty where there are none.

    The teacher sees a class in more or fewer images than were asked for, fewest in corrupted ones.
    """
    found = weak_classes(ladder)
    if not found:
        return ""
    whose = " that it calls so" * (ladder.metric == "agreement")
    named = [
        f"{weak.name} ({100 * weak.share:.0f}% of {counted(weak.num_shown, ladder.unit)}{whose}, "
        f"most often taken for {weak.taken_for})"
        for weak in found[:MAX_NAMED]
    ]
    more = [f"{len(found) - MAX_NAMED} more, see the report"] * (len(found) > MAX_NAMED)
    where = f" on {CLEAN_AND_CORRUPTED} images" * ladder.is_corrupted
    return f"by {REFERENCES[ladder.metric]}{where}: " + ", ".join(named + more)
