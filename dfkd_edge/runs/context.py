"""What every stage is given besides its inputs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from dfkd_edge.files import content_hash
from dfkd_edge.interfaces import Reporter
from dfkd_edge.machine.ranks import ALONE, Ranks
from dfkd_edge.runs.run_dir import RunDir
from dfkd_edge.runs.shared import await_manifest, manifest_hash

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class StageContext:
    """Where a stage writes, whom it tells, its seed, its torch device, and who works along."""

    run_dir: RunDir
    reporter: Reporter
    seed: int
    device: str
    ranks: Ranks = ALONE

    def stage_key(self, stage: str, *inputs: object) -> str:
        """Hash what a stage's result depends on: the seed, and `inputs` with its settings."""
        return content_hash(stage, self.seed, *inputs)

    def is_complete(self, stage: str, key: str) -> bool:
        """Whether the first rank finds a stage done; all ranks ask together."""
        is_done = self.ranks.is_first and self.run_dir.is_complete(stage, key)
        return self.ranks.tell("done" if is_done else "") == "done"

    def first_then_rest(self, make: Callable[[], Made], read: Callable[[], Made]) -> Made:
        """Let the first rank make what the others then read from the run directory."""
        if self.ranks.count == 1:
            return make()
        if self.ranks.is_first:
            made = make()
            self.ranks.tell(manifest_hash(self.run_dir.path))
            return made
        await_manifest(self.run_dir.path, self.ranks.tell(), self.ranks.name)
        return read()
