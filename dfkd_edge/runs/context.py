"""What every stage is given besides its inputs."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TypeVar

from dfkd_edge.files import content_hash
from dfkd_edge.interfaces import Progress, Reporter
from dfkd_edge.machine.ranks import ALONE, Ranks
from dfkd_edge.runs.run_dir import RunDir
from dfkd_edge.runs.shared import await_manifest, manifest_hash

Made = TypeVar("Made")


class Heard:
    """A reporter that remembers what it was told."""

    def __init__(self, reporter: Reporter) -> None:
        """Pass all on to another one."""
        self._reporter, self.notes = reporter, list[str]()

    def stage(self, name: str, total: int, done: int = 0) -> AbstractContextManager[Progress]:
        """Show a stage."""
        return self._reporter.stage(name, total, done)

    def note(self, text: str) -> None:
        """Tell the user something."""
        self.notes.append(text.strip())
        self._reporter.note(text)


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

    @contextlib.contextmanager
    def speaking_for_all(self) -> Iterator["StageContext"]:
        """Let the first rank say in the end what the others were told meanwhile, and it was not.

        Ranks that split work halve its parts by themselves where memory runs out. All wait here.
        """
        heard = Heard(self.reporter)
        yield replace(self, reporter=heard)
        told = self.ranks.gather("\n".join([self.ranks.name, *heard.notes]))
        if self.ranks.is_first:
            for name, *notes in map(str.splitlines, told[1:]):
                for note in dict.fromkeys(notes):
                    if note not in heard.notes:
                        self.reporter.note(f"  {name}: {note}")
