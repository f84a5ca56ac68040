"""Real, small objects that tests share: the embedded teacher, a run directory, silence."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dfkd_edge.class_names import ClassNames, parse_class_names
from dfkd_edge.config import TeacherConfig
from dfkd_edge.interfaces import StageContext
from dfkd_edge.run_dir import open_run
from dfkd_edge.teacher import Teacher, load_teacher

QUICKSTART = Path(__file__).parents[1] / "examples" / "quickstart" / "classes.txt"


class SilentProgress:
    """Counts what a stage reports."""

    def __init__(self) -> None:
        self.count = 0

    def advance(self, count: int = 1, note: str = "") -> None:
        self.count += count


class SilentReporter:
    """Keeps stage names instead of printing them."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    @contextlib.contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Iterator[SilentProgress]:
        self.stages.append(name)
        yield SilentProgress()

    def note(self, text: str) -> None:
        self.stages.append(text)


@pytest.fixture(autouse=True, scope="session")
def _two_threads() -> None:
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def quickstart() -> Path:
    return QUICKSTART


@pytest.fixture(scope="session")
def classes() -> ClassNames:
    return parse_class_names("dog\nhouse\nperson\n", "three classes")


@pytest.fixture(scope="session")
def teacher(classes: ClassNames) -> Teacher:
    return load_teacher(TeacherConfig(), classes)


@pytest.fixture
def context(tmp_path: Path) -> Iterator[StageContext]:
    with open_run(tmp_path / "run", "key", resume=True, exist_ok=False) as run_dir:
        yield StageContext(run_dir, SilentReporter(), seed=0, device="cpu")
