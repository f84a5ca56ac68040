"""Accuracy and agreement of the student beside its teacher, and beside its start weights."""

import contextlib
import dataclasses
import json
from pathlib import Path

import numpy as np

from dfkd_edge.artifacts import StudentArtifact, SurrogateSet
from dfkd_edge.errors import DfkdEdgeError
from dfkd_edge.files import atomic_write, content_hash
from dfkd_edge.networks.baseline import load_baseline
from dfkd_edge.networks.runners import TorchRunner
from dfkd_edge.networks.students import Student, build_start, load_student
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.pictures.labelled import note_unreadable
from dfkd_edge.results.distilled import evaluation_key
from dfkd_edge.results.kept import EVALUATION, read_ladder
from dfkd_edge.results.ladder import START, STUDENT, TEACHER, Ladder, RightAnswers
from dfkd_edge.runs.context import StageContext
from dfkd_edge.validation.baseline import baseline_rung, compared
from dfkd_edge.validation.evaluation_images import EvaluationSet, heldout_source, labelled_pictures
from dfkd_edge.validation.ladder import Rung, climb, summarise
from dfkd_edge.validation.predictions import Predictions


def start_student(artifact: StudentArtifact, teacher: Teacher, seed: int) -> Student:
    """Build the student as it was before it saw a surrogate image, with the same head."""
    settings = artifact.settings
    student = build_start(
        settings.student, settings.init, teacher.head_KD, teacher.logit_scale,
        settings.image_size_px, seed,
    )  # fmt: skip
    return student.eval()


def right_answers(predictions: Predictions) -> RightAnswers:
    """Note what the student got right in the domains that count, which are never shown twice."""
    parts = {name: predictions.domains[name] for name in predictions.averaged}
    shown = [(n, p.labels.tolist(), p.guess(TEACHER).tolist()) for n, p in parts.items()]
    bits = {
        name: np.packbits(part.right(STUDENT, predictions.metric)).tobytes().hex()
        for name, part in parts.items()
    }
    return RightAnswers(shown=content_hash(*shown), domains=bits)


def evaluate(
    artifact: StudentArtifact,
    teacher: Teacher,
    surrogates: SurrogateSet,
    data: str,
    context: StageContext,
    baseline: str = "",
) -> Ladder:
    """Compare teacher, start weights and student on held-out surrogates and on labelled pictures.

    Args:
        artifact: the student.
        teacher: with the head of its classes.
        surrogates: the held-out ones are shown.
        data: folder of labelled pictures, or empty.
        context: of the run.
        baseline: a small CLIP, as `--baseline` names it, that is shown the same images; or empty.

    Returns:
        What evaluation.json holds. Labelled pictures count where there are some, and `retention`
        is the student's mean top-1 on them over the teacher's; else the teacher's answers on
        held-out surrogates do.

    Raises:
        ConfigError: `data` cannot be used, or no picture of a domain can be read.
    """
    run = context.run_dir.path
    key = evaluation_key(run, data, baseline)
    with contextlib.suppress(DfkdEdgeError):  # a damaged one is measured again
        if (known := read_ladder(run / EVALUATION)) and known.key == key:
            return known
    student, names = load_student(artifact).to(context.device), artifact.settings.classes
    side_px, tell = student.image_size_px, context.reporter.note
    start = start_student(artifact, teacher, context.seed)
    templates = teacher.config.templates
    beside = (
        load_baseline(baseline, templates, teacher.classes, context.device) if baseline else None
    )
    rungs = (
        Rung(TEACHER, TorchRunner(TEACHER, teacher, tell), teacher.image_size_px),
        Rung(START, TorchRunner(START, start, tell), side_px),
        Rung(STUDENT, TorchRunner(STUDENT, student, tell), side_px),
    )
    shown = EvaluationSet((heldout_source(surrogates),), "agreement", "held-out surrogate images")
    if data:
        sides_px = {teacher.image_size_px, side_px, beside.image_size_px if beside else side_px}
        pictures = labelled_pictures(Path(data), names, tuple(sides_px))
        context.reporter.note(f"  {pictures.description}")
        shown = dataclasses.replace(pictures, sources=(*shown.sources, *pictures.sources))
    with context.reporter.stage("evaluating", shown.num_images) as progress:
        shown_to = (baseline_rung(beside), *rungs) if beside else rungs
        predictions = climb(shown_to, shown, frozenset(), progress)  # nothing is calibrated yet
    note_unreadable(predictions.unreadable, context.reporter)
    ladder = summarise(names, rungs, predictions.of_rungs(*(rung.name for rung in rungs)))
    teacher_top1, student_top1 = ladder.rungs[0].mean_top1, ladder.shipped.mean_top1
    ladder = dataclasses.replace(
        ladder,
        images=shown.description,
        retention=student_top1 / teacher_top1 if student_top1 and teacher_top1 else None,
        truth=ladder.metric,
        right=right_answers(predictions),
        key=key,
        baseline=compared(baseline, beside, student, predictions, names) if beside else None,
    )
    document = json.dumps(ladder.to_json(), indent=2, ensure_ascii=False)
    atomic_write(run / EVALUATION, document + "\n")
    return ladder
