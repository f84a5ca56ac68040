"""Labelled pictures on the device, and how well they go.

What cannot be used is named and passed over: unreadable pictures, folders that are no class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.faults import Fault, LackingFault, UsageFault
from dfkd_edge.runtime.folder_layouts import expected_layout, pictures_in, read_layout
from dfkd_edge.runtime.preprocess import read_picture
from dfkd_edge.runtime.session import Session
from dfkd_edge.runtime.share_interval import wilson_interval


@dataclass(frozen=True)
class LabelledPicture:
    """One picture and what it shows."""

    path: Path
    domain: str
    label: int
    """Index into the class list."""


@dataclass(frozen=True)
class LabelledFolder:
    """A folder whose labelled pictures have been found; none has been read yet."""

    root: Path
    pictures: tuple[LabelledPicture, ...]
    skipped: tuple[str, ...]
    """Folders that are passed over, one line each."""
    description: str
    """How the folder was read, in one line."""


@dataclass
class FolderScore:
    """How a model does on a folder of pictures."""

    classes: tuple[str, ...]
    correct: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    """Domain -> class -> [correct, seen, answered, answered correctly]."""
    skipped: list[str] = field(default_factory=list)
    """What was passed over, one line each."""

    def add(self, domain: str, label: int, predicted: int, is_known: bool = True) -> None:
        """Count one picture; an answer below the reject threshold counts as none as well."""
        tally = self.correct.setdefault(domain, {}).setdefault(self.classes[label], [0, 0, 0, 0])
        is_right = predicted == label
        for index, holds in enumerate((is_right, True, is_known, is_known and is_right)):
            tally[index] += int(holds)

    def as_dict(self) -> dict[str, Any]:
        """Return accuracies by domain and class, in the form of a rung of the ladder."""
        domains = {}
        for domain, tallies in self.correct.items():
            right, seen, known, sure = (sum(t[i] for t in tallies.values()) for i in range(4))
            by_class = {name: t[0] / t[1] for name, t in tallies.items()}
            domains[domain] = {"num_images": seen, "top1": right / seen, "classes": by_class}
            domains[domain]["top1_interval"] = list(wilson_interval(right / seen, seen))
            domains[domain]["answered"] = known / seen
            domains[domain]["top1_answered"] = sure / known if known else None
        top1 = {name: float(d["top1"]) for name, d in domains.items()}  # type: ignore[arg-type]
        return {
            "domains": domains,
            "mean_top1": sum(top1.values()) / len(top1),
            "worst_domain": min(top1, key=lambda name: top1[name]),
            "skipped": self.skipped,
        }


def find_pictures(root: Path, classes: tuple[str, ...]) -> LabelledFolder:
    """Find the labelled pictures, name the folders that are no class, and say how all was read.

    Raises:
        UsageFault: the folder is missing or holds no picture of any class.
    """
    if not root.is_dir():
        raise UsageFault("no such folder", f"--data {root}")
    layout = read_layout(root, classes)
    pictures: list[LabelledPicture] = []
    skipped: list[str] = []
    for folder in layout.folders:
        files = pictures_in(folder.path)
        if folder.label is None:
            skipped.append(
                f"{folder.path}: names no class, {counted(len(files), 'picture')} passed over"
                + (f"; did you mean {folder.near}?" if folder.near else "")
            )
        elif not files:
            skipped.append(f"{folder.path}: holds no picture")
        else:
            pictures += [LabelledPicture(file, folder.domain, folder.label) for file in files]
    if not pictures:
        raise UsageFault(
            "no picture of any class", f"--data {root}", expected_layout(root, classes)
        )
    return LabelledFolder(root, tuple(pictures), tuple(skipped), layout.description)


def score_folder(
    session: Session, folder: LabelledFolder, bundle: Bundle, tell: Callable[[str], None]
) -> FolderScore:
    """Classify every labelled picture of a folder; `tell` is told how far it is.

    Raises:
        UsageFault: no picture can be read.
        LackingFault: Pillow is not installed.
    """
    score, confidence = FolderScore(bundle.classes, skipped=list(folder.skipped)), bundle.confidence
    for number, picture in enumerate(folder.pictures):
        tell(f"{number} of {counted(len(folder.pictures), 'picture')}")
        try:
            image = read_picture(picture.path, bundle.side_px)
        except LackingFault:
            raise
        except Fault as fault:
            score.skipped.append(str(fault))
            continue
        logits_NK = session.run(image[None]).logits
        is_known = bool(confidence.is_known(logits_NK)[0])
        score.add(picture.domain, picture.label, int(np.argmax(logits_NK[0])), is_known)
    if not score.correct:
        raise UsageFault(
            "no picture can be read", f"--data {folder.root}", f"such as {score.skipped[-1]}"
        )
    return score
