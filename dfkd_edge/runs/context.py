"""What every stage is given besides its inputs."""

from dataclasses import dataclass

from dfkd_edge.files import content_hash
from dfkd_edge.interfaces import Reporter
from dfkd_edge.runs.run_dir import RunDir


@dataclass(frozen=True, slots=True)
class StageContext:
    """Where a stage writes, whom it tells, its seed and its torch device."""

    run_dir: RunDir
    reporter: Reporter
    seed: int
    device: str

    def stage_key(self, stage: str, *inputs: object) -> str:
        """Hash what a stage's result depends on: the seed, and `inputs` with its settings."""
        return content_hash(stage, self.seed, *inputs)
