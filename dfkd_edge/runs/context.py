"""The surroundings of a stage: where it writes, whom it tells, its seed and device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dfkd_edge.files import content_hash
from dfkd_edge.interfaces import Reporter
from dfkd_edge.runs.run_dir import RunDir

if TYPE_CHECKING:
    pass


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
