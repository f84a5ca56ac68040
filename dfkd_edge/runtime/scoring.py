"""How a model does on labelled pictures; those that cannot be read are named and passed over.

Shape suffixes: N pictures, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.faults import PictureFault, UsageFault
from dfkd_edge.runtime.folder_layouts import LabelledFolder
from dfkd_edge.runtime.preprocess import read_picture
from dfkd_edge.runtime.session import Session
from dfkd_edge.runtime.share_interval import (
    TOO_FEW_WITHIN,
    exact_interval,
    interval_text,
    is_too_wide,
    mean_interval,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class DomainScore:
    """Shares of the pictures of one domain, in 0 to 1."""

    num_images: int
    top1: float
    classes: dict[str, float]  # Top-1 of the pictures of each class
    top1_interval: tuple[float, float]  # 95% interval of `top1`
    answered: float  # Share of pictures whose answer is above the reject threshold
    top1_answered: float | None  # Top-1 of these; None where there are none


@dataclass(frozen=True)
class FolderScore:
    """Shares of the pictures of a folder, by domain."""

    domains: dict[str, DomainScore]
    mean_top1: float  # Mean over the domains
    worst_domain: str
    skipped: list[str]  # What was passed over, one line each

    def lines(self) -> Iterator[str]:
        """Write the score in the words and percents of `dfkd-edge check`.

        The mean over domains, which the host's verdict states, comes last where there are several.
        """
        yield from (f"note: {line}" for line in self.skipped)
        figures = []
        for name, domain in self.domains.items():
            figures.append((domain.top1, *domain.top1_interval))
            sure = domain.top1_answered
            right = "" if sure is None else f", of these {100 * sure:.1f}% right"
            answered = f"; {100 * domain.answered:.1f}% answered{right}"
            yield _top1_text(name, figures[-1], domain.num_images) + answered
        if len(figures) > 1:
            num_images = sum(domain.num_images for domain in self.domains.values())
            yield _top1_text("mean", mean_interval(figures), num_images)


def _top1_text(name: str, figures: tuple[float, float, float], num_pictures: int) -> str:
    top1, *ends = figures
    few = f": {TOO_FEW_WITHIN}" if is_too_wide(*ends) else ""
    text = f"{name}: {100 * top1:.1f}% top-1, {interval_text(*ends)}"
    return f"{text}, on {counted(num_pictures, 'picture')}{few}"


def score_folder(
    session: Session, folder: LabelledFolder, bundle: Bundle, tell: Callable[[str], None]
) -> FolderScore:
    """Classify every labelled picture of a folder; `tell` is told how far it is.

    Raises:
        UsageFault: no picture can be read.
        LackingFault: Pillow is not installed.
    """
    domains: dict[str, DomainScore] = {}
    skipped, number = folder.skipped, 0
    for domain in folder.domains:
        labels, logits = [], []
        for file, label in zip(domain.files, domain.labels):
            tell(f"{number} of {counted(folder.num_pictures, 'picture')}")
            number += 1
            try:
                image_HWC = read_picture(file, bundle.side_px)
            except PictureFault as fault:
                skipped.append(str(fault))
                continue
            labels.append(label)
            logits.append(session.run(image_HWC[None]).logits[0])
        if labels:
            domains[domain.name] = _domain_score(np.array(labels), np.stack(logits), bundle)
    if not domains:
        what, example = "no picture can be read", f"such as {skipped[-1]}"
        raise UsageFault(what, f"--data {folder.root}", example)
    top1 = {name: score.top1 for name, score in domains.items()}
    worst = min(top1, key=lambda name: top1[name])
    return FolderScore(domains, sum(top1.values()) / len(top1), worst, skipped)


def _domain_score(
    label_N: NDArray[np.int64], logits_NK: NDArray[np.float32], bundle: Bundle
) -> DomainScore:
    right_N = logits_NK.argmax(axis=1) == label_N
    known_N = bundle.confidence.is_known(logits_NK)
    num, top1 = len(label_N), float(right_N.mean())
    by_class = {
        bundle.classes[label]: float(right_N[label_N == label].mean())
        for label in dict.fromkeys(label_N.tolist())  # in the order of the folders
    }
    return DomainScore(
        num_images=num,
        top1=top1,
        classes=by_class,
        top1_interval=exact_interval(top1, num),
        answered=float(known_N.mean()),
        top1_answered=float(right_N[known_N].mean()) if known_N.any() else None,
    )
