"""Accuracy and agreement of the student beside its teacher, and beside its start weights.

Shape suffixes: N images, H rows, W columns, C = 3 channels (RGB), K classes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dfkd_edge.artifacts import StudentArtifact, SurrogateSet
from dfkd_edge.files import atomic_write
from dfkd_edge.interfaces import Progress, Runner
from dfkd_edge.machine.environment import describe_environment
from dfkd_edge.networks.runners import EmbeddingClassifier, SizedRunner, TeacherNetwork, TorchRunner
from dfkd_edge.networks.students import Student, build_start, load_student
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.pictures.labelled import (
    find_labelled,
    no_readable_picture,
    note_unreadable,
)
from dfkd_edge.runs.context import StageContext
from dfkd_edge.runtime.folder_layouts import Domain
from dfkd_edge.validation.confidence import confusion, reliability
from dfkd_edge.validation.corruptions import Images
from dfkd_edge.validation.evaluation_images import HELDOUT_DOMAIN, FolderSource, Measure
from dfkd_edge.validation.statistics import share_interval

STAGE = "evaluation"
BATCH_SIZE = 64
Batch = tuple[Images, np.ndarray]


def folder_batches(domain: Domain, side_px: int, unreadable: list[Path]) -> Iterator[Batch]:
    """Read the pictures of a domain in order; what cannot be read is appended to `unreadable`.

    Raises:
        ConfigError: none of them can be read.
    """
    is_empty = True
    for batch in FolderSource(domain, (side_px,), first=0).batches(BATCH_SIZE, unreadable):
        is_empty = False
        yield batch.at(side_px), batch.labels
    if is_empty:
        raise no_readable_picture(domain.name, unreadable)


def _surrogate_batches(surrogates: SurrogateSet) -> Iterator[Batch]:
    rows = np.flatnonzero(surrogates.is_heldout)
    for start in range(0, len(rows), BATCH_SIZE):
        part = rows[start : start + BATCH_SIZE]
        yield surrogates.images[part], surrogates.class_index[part]


def compare(
    batches: Iterator[Batch],
    runners: Mapping[str, Runner],
    class_names: Sequence[str],
    progress: Progress,
    measure: Measure = "top1",
) -> dict[str, dict[str, Any]]:
    """Top-1 of each network and its agreement with the first one, which is the teacher.

    Args:
        batches: image_NHWC, uint8, and labels.
        runners: of the networks, by name.
        class_names: in the order of the logits.
        progress: moves on by images.
        measure: whose answers count as right by class: the labels, or the teacher's.

    Returns:
        name -> {"num_images", "top1", "top1_interval", "agreement", ...} as `check --json`.
    """
    parts: dict[str, list[np.ndarray]] = {name: [] for name in runners}
    labels: list[np.ndarray] = []
    for image_NHWC, label_N in batches:
        for name, runner in runners.items():
            parts[name].append(runner(image_NHWC).logits)
        labels.append(label_N)
        progress.advance(len(label_N))
    label_N = np.concatenate(labels)
    logits = {name: np.concatenate(part) for name, part in parts.items()}
    teacher_answer_N = next(iter(logits.values())).argmax(1)
    expected: dict[Measure, np.ndarray] = {"top1": label_N, "agreement": teacher_answer_N}
    return {
        name: _figures(logits_NK, expected, measure, class_names)
        for name, logits_NK in logits.items()
    }


def _figures(
    logits_NK: np.ndarray,
    expected: Mapping[Measure, np.ndarray],
    measure: Measure,
    class_names: Sequence[str],
) -> dict[str, Any]:
    guess_N, expected_N = logits_NK.argmax(1), expected[measure]
    interval, agreement = (share_interval(guess_N == expected[m]) for m in ("top1", "agreement"))
    return {
        "num_images": len(guess_N),
        "top1": interval.mean,
        "top1_interval": [interval.low, interval.high],
        "agreement": agreement.mean,
        "agreement_interval": [agreement.low, agreement.high],
        "confusion": confusion(expected_N, guess_N, class_names),
        "reliability": reliability(logits_NK, guess_N == expected_N),
    }


def start_student(artifact: StudentArtifact, teacher: Teacher, seed: int) -> Student:
    """Build the student as it was before it saw a surrogate image, with the same head."""
    settings = artifact.settings
    student = build_start(
        settings.student, settings.init, teacher.head_KD, teacher.logit_scale,
        settings.image_size_px, seed,
    )  # fmt: skip
    return student.eval()


def evaluate(
    artifact: StudentArtifact,
    teacher: Teacher,
    surrogates: SurrogateSet,
    data: str,
    context: StageContext,
) -> dict[str, Any]:
    """Compare teacher, start weights and student on held-out surrogates and on labelled pictures.

    Returns:
        The document of evaluation.json: `rungs` as in `check --json`, `environment`,
        `num_unreadable` pictures that were passed over, and `retention`, the student's mean top-1
        over the teacher's on `data` (None without data); `truth`, what answers by class and
        confidences are held against: the labels, or the teacher's answers without data.

    Raises:
        ConfigError: `data` cannot be used, or no picture of a domain can be read.
    """
    student = load_student(artifact)
    side_px = max(student.image_size_px, teacher.image_size_px)
    names = artifact.settings.classes
    found = find_labelled(Path(data), names) if data else None
    labelled = found.domains if found else []
    unreadable: list[Path] = []
    sources = {domain.name: folder_batches(domain, side_px, unreadable) for domain in labelled}
    total = int(surrogates.is_heldout.sum()) + sum(len(domain.files) for domain in labelled)
    if found:
        context.reporter.note(f"  {data}: {found.description}")

    networks: dict[str, tuple[EmbeddingClassifier, int]] = {
        "teacher": (TeacherNetwork(teacher), teacher.image_size_px),
        "student-start": (
            start_student(artifact, teacher, context.seed),
            student.image_size_px,
        ),
        "student": (student, student.image_size_px),
    }
    runners = {name: TorchRunner(name, network) for name, (network, _) in networks.items()}
    as_in_ladder = {name: SizedRunner(runners[name], side) for name, (_, side) in networks.items()}
    with context.reporter.stage("evaluating", total) as progress:
        heldout = _surrogate_batches(surrogates)
        domains = {HELDOUT_DOMAIN: compare(heldout, as_in_ladder, names, progress, "agreement")}
        for name, batches in sources.items():
            domains[name] = compare(batches, runners, names, progress)
    note_unreadable(unreadable, context.reporter)
    document = {
        **summarise(names, domains),
        "num_unreadable": len(unreadable),
        "environment": describe_environment(),
    }
    atomic_write(
        context.run_dir.path / "evaluation.json",
        json.dumps(document, indent=2, ensure_ascii=False) + "\n",
    )
    return document


def summarise(
    class_names: tuple[str, ...], domains: dict[str, dict[str, dict[str, Any]]]
) -> dict[str, Any]:
    """Turn domain -> network -> figures into rungs; means are over labelled domains."""
    labelled = [name for name in domains if name != HELDOUT_DOMAIN]
    rungs: list[dict[str, Any]] = []
    for network in next(iter(domains.values())):
        figures = {domain: result[network] for domain, result in domains.items()}
        top1 = {name: figures[name]["top1"] for name in labelled}
        rungs.append(
            {
                "name": network,
                "domains": figures,
                "mean_top1": float(np.mean(list(top1.values()))) if top1 else None,
                "worst_domain": min(top1, key=top1.__getitem__) if top1 else None,
            }
        )
    teacher_top1, student_top1 = rungs[0]["mean_top1"], rungs[-1]["mean_top1"]
    retention = student_top1 / teacher_top1 if teacher_top1 else None
    truth: Measure = "top1" if labelled else "agreement"
    document = {"classes": list(class_names), "rungs": rungs, "retention": retention}
    return {**document, "truth": truth}
