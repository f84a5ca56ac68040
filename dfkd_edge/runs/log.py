"""What a run keeps of its making: stages and notes in run.log, metrics for TensorBoard."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from dfkd_edge.errors import EnvironmentLackingError
from dfkd_edge.runs.run_dir import RunDir

if TYPE_CHECKING:
    from dfkd_edge.interfaces import Progress, Reporter

FOLDER = "tensorboard"


@dataclass(frozen=True, slots=True)
class LoggedReporter:
    """Passes everything on, and keeps in run.log what stays on the screen."""

    reporter: Reporter
    run_dir: RunDir

    @contextlib.contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Iterator[Progress]:
        """Log the stage with its seconds when it ends, or what cut it off."""
        begun = time.monotonic()
        with self.reporter.stage(name, total, done) as progress:
            try:
                yield progress
            except BaseException as error:
                with contextlib.suppress(OSError):  # a full disk must not hide the error
                    self.run_dir.log(f"{name}: cut off by {type(error).__name__}")
                raise
        self.run_dir.log(f"{name}: {time.monotonic() - begun:.0f} s")

    def note(self, text: str) -> None:
        """Log the line."""
        self.reporter.note(text)
        self.run_dir.log(text.strip())


def require_tensorboard() -> None:
    """Check that it is installed, before anything is computed.

    Raises:
        EnvironmentLackingError: it is not.
    """
    if find_spec("tensorboard") is None:
        raise EnvironmentLackingError(
            "tensorboard is not installed",
            where="--tensorboard",
            hint="pip install 'dfkd-edge[tensorboard]'",
        )


@contextlib.contextmanager
def mirrored(run_dir: RunDir) -> Iterator[None]:
    """Write what is added to metrics.jsonl for TensorBoard too, as `stage/name`.

    TensorBoard shows a step twice that is written twice. So the events of earlier starts are made
    anew from metrics.jsonl: of each stage, once it is known from which step on it is done again.
    """
    from torch.utils.tensorboard.writer import SummaryWriter

    history: dict[str, list[dict[str, Any]]] = {}
    for row in run_dir.read_metrics():
        history.setdefault(row.pop("stage"), []).append(row)
    folder = run_dir.path / FOLDER
    shutil.rmtree(folder, ignore_errors=True)  # event files cannot be edited, only written anew
    with SummaryWriter(str(folder), flush_secs=10) as writer:  # its 120 s outlast a short stage

        def write(stage: str, step: int, values: dict[str, float]) -> None:
            for name, value in values.items():
                writer.add_scalar(f"{stage}/{name}", value, step)

        def follow(stage: str, step: int, values: dict[str, float]) -> None:
            for row in history.pop(stage, []):
                if row["step"] < step:
                    write(stage, row.pop("step"), row)
            write(stage, step, values)

        run_dir.followers.append(follow)
        try:
            yield
        finally:
            run_dir.followers.remove(follow)
            for stage, rows in history.items():  # stages that were done before this start
                for row in rows:
                    write(stage, row.pop("step"), row)
