"""How one cell of the study, an arm under a seed, is run.

A cell is done when its JSON is there. One that was cut off starts anew, so that the seconds of a
cell are those of one unbroken run.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from arms import ARMS, Arm, Kind
from picture_sets import dead_leaves, labelled_by_teacher, real_pictures, stored_pictures

from dfkd_edge.artifacts import SurrogateSet
from dfkd_edge.class_names import read_class_names
from dfkd_edge.config.file import load_config, settings_of
from dfkd_edge.config.settings import PipelineConfig
from dfkd_edge.distillation import distill
from dfkd_edge.errors import RunDirError
from dfkd_edge.files import atomic_write, content_hash
from dfkd_edge.interfaces import Reporter
from dfkd_edge.networks.runners import TorchRunner
from dfkd_edge.networks.students import Student, build_student, load_student
from dfkd_edge.networks.teacher import Teacher, load_teacher
from dfkd_edge.pipeline import make_prompts, open_teacher
from dfkd_edge.results.ladder import STUDENT
from dfkd_edge.runs.context import StageContext
from dfkd_edge.runs.run_dir import open_run
from dfkd_edge.seeding import derived_seed
from dfkd_edge.synthesis.synthesize import synthesize
from dfkd_edge.validation.evaluation_images import labelled_pictures
from dfkd_edge.validation.ladder import Rung, climb

MIN_IMAGES = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyRequest:
    """What every cell shares."""

    classes: Path
    data: Path
    output: Path
    pictures: Path | None
    """Folder of parquet files, or photos.npy."""
    num_reference_images: int
    overrides: tuple[str, ...]
    """Settings of every arm; an arm's own come after them."""

    def config(self, arm: Arm, seed: int) -> PipelineConfig:
        """Settings of a cell, before it is paced.

        Raises:
            ConfigError: a setting is wrong.
        """
        few = (f"synthesis.num_images={self.num_reference_images}",)
        texts = (*self.overrides, *(few if arm.is_reference_size else ()), *arm.overrides)
        return load_config(None, settings_of(texts, {"seed": seed, "classes": self.classes}))


@dataclass(frozen=True, slots=True)
class Cell:
    """An arm under a seed."""

    arm: str
    seed: int

    def __str__(self) -> str:
        """Name it for a human."""
        return f"{self.arm}, seed {self.seed}"

    def needs(self) -> list[Cell]:
        """Cells whose seconds set how many images this one makes."""
        paced_by = ARMS[self.arm].paced_by
        names = (ARMS[self.arm].in_seconds_of, paced_by) if paced_by else ()
        return [Cell(name, self.seed) for name in names]

    def folder(self, output: Path) -> Path:
        """Its run directory."""
        return output / "cells" / f"{self.arm}-seed{self.seed}"

    def read(self, output: Path) -> dict[str, Any] | None:
        """Its result, or None while it is not finished."""
        path = self.folder(output).with_suffix(".json")
        if not path.is_file():
            return None
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return document


class Stopwatch:
    """Seconds of each stage of a cell, of the clock and of the CPU."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time what is inside."""
        begun, cpu_begun = time.monotonic(), time.process_time()
        yield
        self.seconds[stage] = time.monotonic() - begun
        self.cpu_seconds[stage] = time.process_time() - cpu_begun


def run_cell(cell: Cell, request: StudyRequest, reporter: Reporter) -> dict[str, Any]:
    """Run a cell, or read its result where it is finished.

    Returns:
        arm, seed, key, seconds, cpu_seconds, facts, and domains: name -> one digit a picture, 1
        where the class is right.

    Raises:
        RunDirError: the output holds this cell with other settings.
        DfkdEdgeError: whatever the stages raise.
    """
    config = request.config(ARMS[cell.arm], cell.seed)
    key = content_hash(
        config, dataclasses.astuple(cell), read_class_names(request.classes), request.data,
        request.pictures if ARMS[cell.arm].kind == "real" else "",
    )  # fmt: skip
    folder = cell.folder(request.output)
    finished = cell.read(request.output)
    if finished:
        if finished["key"] != key:
            raise RunDirError(
                f"holds the cell '{cell}' with other settings",
                where=str(request.output),
                hint="choose another --output, or remove the cell's folder and JSON",
            )
        return finished
    config = paced(config, cell, request.output)
    watch = Stopwatch()
    with open_run(folder, key, resume=False, exist_ok=True) as run_dir:
        context = StageContext(run_dir, reporter, config.seed, config.device)
        made = _make(ARMS[cell.arm].kind, config, request, context, watch)
        domains = _right(made, request, reporter)
    document = {
        "arm": cell.arm,
        "seed": cell.seed,
        "key": key,
        "seconds": {stage: round(value, 2) for stage, value in watch.seconds.items()},
        "cpu_seconds": {stage: round(value, 2) for stage, value in watch.cpu_seconds.items()},
        "facts": made.facts,
        "domains": domains,
    }
    atomic_write(folder.with_suffix(".json"), json.dumps(document, ensure_ascii=False) + "\n")
    return document


def paced(config: PipelineConfig, cell: Cell, output: Path) -> PipelineConfig:
    """Set the number of images to what fits into the seconds that another arm took for its data.

    The rate is that of the arm at its full number of images, its prompts come first. At least
    MIN_IMAGES are made: where that takes longer, the table's seconds show it.
    """
    if not ARMS[cell.arm].paced_by:
        return config
    other, pace = (needed.read(output) for needed in cell.needs())
    if not other or not pace:
        raise RuntimeError(f"{cell} was run before the cells that set its pace")
    budget_s = other["seconds"]["prompts"] + other["seconds"]["synthesis"]
    image_s = pace["seconds"]["synthesis"] / pace["facts"]["num_candidates"]
    fitting = int((budget_s - pace["seconds"]["prompts"]) / image_s)
    synthesis = dataclasses.replace(config.synthesis, num_images=max(MIN_IMAGES, fitting))
    return dataclasses.replace(config, synthesis=synthesis)


@dataclass(frozen=True, slots=True)
class Made:
    """What a cell measures."""

    network: Teacher | Student
    side_px: int
    facts: dict[str, Any]
    """About the prompts and pictures that it learnt from."""


def _make(
    kind: Kind,
    config: PipelineConfig,
    request: StudyRequest,
    context: StageContext,
    watch: Stopwatch,
) -> Made:
    if kind == "surrogates":
        with watch("prompts"):
            names = read_class_names(request.classes)
            teacher = open_teacher(config, names, context.reporter)
            prompts = make_prompts(config, teacher, context)
        with watch("synthesis"):
            surrogates = synthesize(prompts, teacher, config.synthesis, context)
        facts = {**dataclasses.asdict(prompts.diversity), **_facts(surrogates)}
    else:
        teacher = load_teacher(config.teacher, read_class_names(request.classes), config.device)
        if kind == "teacher":
            return Made(teacher, teacher.image_size_px, {})
        if kind == "start":
            start = _start(config, teacher)
            return Made(start, start.image_size_px, {})
        with watch("synthesis"):
            surrogates = PICTURES[kind](config, request, teacher)
        facts = _facts(surrogates)
    with watch("distillation"):
        artifact = distill(teacher, surrogates, config.distillation, context)
    student = load_student(artifact).to(config.device)
    return Made(student, student.image_size_px, facts)


def _start(config: PipelineConfig, teacher: Teacher) -> Student:
    torch.manual_seed(derived_seed(config.seed, "student"))
    settings = config.distillation
    student = build_student(
        settings.student, settings.student_init, teacher.head_KD, teacher.logit_scale,
        settings.image_size_px or None,
    )  # fmt: skip
    return student.to(config.device).eval()


def _facts(surrogates: SurrogateSet) -> dict[str, Any]:
    names = ["num_images", "mean_distance_within_class"]
    if surrogates.summary.classes:  # of a set of pictures each is taken: no candidates
        names += ["num_candidates", "acceptance"]
    return {name: getattr(surrogates.summary, name) for name in names}


def _real(config: PipelineConfig, request: StudyRequest, teacher: Teacher) -> SurrogateSet:
    if request.pictures is None:
        raise RuntimeError("cells of real pictures are planned only where there are some")
    path = stored_pictures(request.pictures, request.output / "pictures")
    pictures = real_pictures(path, config.synthesis.num_images, config.seed)
    return labelled_by_teacher(pictures, teacher, f"real {config.seed}")


def _dead_leaves(config: PipelineConfig, _: StudyRequest, teacher: Teacher) -> SurrogateSet:
    pictures = dead_leaves(config.synthesis.num_images, teacher.image_size_px, config.seed)
    return labelled_by_teacher(pictures, teacher, f"dead leaves {config.seed}")


PICTURES: dict[str, Callable[[PipelineConfig, StudyRequest, Teacher], SurrogateSet]] = {
    "real": _real,
    "dead-leaves": _dead_leaves,
}


def _right(made: Made, request: StudyRequest, reporter: Reporter) -> dict[str, str]:
    """Say for each picture of each domain whether its class is right, one digit a picture."""
    names = read_class_names(request.classes).names
    evaluation = labelled_pictures(request.data, names, (made.side_px,))
    rung = Rung(STUDENT, TorchRunner(STUDENT, made.network), made.side_px)
    with reporter.stage("evaluating", evaluation.num_images) as progress:
        predictions = climb([rung], evaluation, frozenset(), progress)
    return {
        name: "".join("01"[flag] for flag in part.right(STUDENT, "top1").tolist())
        for name, part in predictions.domains.items()
    }
