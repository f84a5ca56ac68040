"""What the shipped rung answers by class, and the classes it fails on.

Reads the documents of `distill`, `export` and `check` alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dfkd_edge.results.certainty import (
    CLEAN_AND_CORRUPTED,
    domains_of,
    images_and_pictures,
    is_corrupted,
    measure_of,
    unit_of,
)
from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.share_interval import wilson_interval

WEAK_SHARE = 0.5
"""A class is weak where fewer than half of its images are answered right (ours)."""
MAX_NAMED = 5
TRUTHS = {"top1": "the true classes", "agreement": "the teacher's answers"}
"""By measure, what the answers of a rung are held against."""
OLDER_TRUTH = (
    "the teacher's answers or the classes asked for (an earlier version did not write down which)"
)


@dataclass(frozen=True, slots=True)
class WeakClass:
    """A class that a rung fails on."""

    name: str
    share: float
    """Answered right, over all domains."""
    num_images: int
    """Independent ones."""
    num_shown: int
    """In all domains and views."""
    taken_for: str
    """The most frequent wrong answer."""


def is_truth_stated(document: Mapping[str, Any]) -> bool:
    """Whether it is known what the answers were held against.

    `distill` once took the classes asked for where it takes the teacher's answers now.
    """
    return bool({"measure", "truth"} & document.keys()) or measure_of(document) == "top1"


def truth_of(document: Mapping[str, Any]) -> str:
    """Name what the answers of a document were held against."""
    return TRUTHS[measure_of(document)] if is_truth_stated(document) else OLDER_TRUTH


def pooled_answers(
    rung: Mapping[str, Any], domains: Sequence[str]
) -> dict[str, Counter[str]] | None:
    """Expected class -> answers over some domains; None in an older file."""
    total: dict[str, Counter[str]] = {}
    for domain in domains:
        table = rung["domains"][domain].get("confusion")
        if table is None:
            return None
        for expected, answers in table.items():
            total.setdefault(expected, Counter()).update(answers)
    return total


def weak_classes(document: Mapping[str, Any]) -> list[WeakClass]:
    """Find the classes that the last rung fails on, weakest first.

    A class counts when it is below half and its images are too many for that to be chance: the
    95 % interval of its share ends below the mean over classes. Surrogates come in every domain and
    in several views, so each counts once.
    """
    domains = domains_of(document)
    answers = pooled_answers(document["rungs"][-1], domains) or {}
    num_shown, num_pictures = images_and_pictures(document) if answers else (1, 1)
    seen = {name: answered for name, answered in answers.items() if answered.total()}
    shares = {name: answered[name] / answered.total() for name, answered in seen.items()}
    mean = sum(shares.values()) / max(len(shares), 1)
    found = []
    for name, share in sorted(shares.items(), key=lambda item: item[1]):
        num_images = max(1, round(seen[name].total() * num_pictures / num_shown))
        _, most = wilson_interval(share, num_images)
        if share < WEAK_SHARE and most < mean:
            (taken_for, _), *_ = (seen[name] - Counter({name: seen[name][name]})).most_common(1)
            found.append(WeakClass(name, share, num_images, seen[name].total(), taken_for))
    return found


def weak_classes_sentence(document: Mapping[str, Any]) -> str:
    """Name them with the share answered right, in one line; empty where there are none.

    The teacher sees a class in more or fewer images than were asked for, fewest in corrupted ones.
    """
    found = weak_classes(document)
    if not found:
        return ""
    truth, unit = truth_of(document), unit_of(document)
    whose = " that it calls so" * (truth == TRUTHS["agreement"])
    named = [
        f"{weak.name} ({100 * weak.share:.0f}% of {counted(weak.num_shown, unit)}{whose}, "
        f"most often taken for {weak.taken_for})"
        for weak in found[:MAX_NAMED]
    ]
    more = [f"{len(found) - MAX_NAMED} more, see the report"] * (len(found) > MAX_NAMED)
    where = f" on {CLEAN_AND_CORRUPTED} images" * is_corrupted(document)
    return f"by {truth}{where}: " + ", ".join(named + more)


def weak_classes_lines(document: Mapping[str, Any]) -> list[str]:
    """Make the line of a closing panel that names them, if there are any."""
    sentence = weak_classes_sentence(document)
    return [f"weak        {sentence}"] if sentence else []
