"""What stages are given besides artifacts: where to write, whom to tell, which seed."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from dfkd_edge.config import content_hash
from dfkd_edge.run_dir import RunDir


class Progress(Protocol):
    """The bar of one stage."""

    def advance(self, count: int = 1, note: str = "") -> None:
        """Move on; `note` is shown beside the bar."""


class Reporter(Protocol):
    """Tells the user what happens; quiet, JSON or a rich console."""

    def stage(self, name: str, total: int, done: int = 0) -> AbstractContextManager[Progress]:
        """Open the bar of a stage; `done` counts what an earlier run has finished."""

    def note(self, text: str) -> None:
        """Say one line that stays."""


@dataclass(frozen=True, slots=True)
class StageContext:
    """The surroundings of a stage."""

    run_dir: RunDir
    reporter: Reporter
    seed: int
    device: str

    def stage_key(self, stage: str, *inputs: object) -> str:
        """Hash what a stage's result depends on: seed, device, config and inputs."""
        return content_hash(stage, self.seed, self.device, *inputs)
