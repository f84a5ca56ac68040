"""Mirrors a run's metrics to TensorBoard while it goes on; the extra `tensorboard` brings it.

The event files follow from metrics.jsonl, so they are made anew at each start. Where a stage is
done again, its lines from there on are left out: they may be another student's.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from dfkd_edge.errors import EnvironmentLackingError
from dfkd_edge.run_dir import RunDir

FOLDER = "tensorboard"


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
    """Write all that is added to metrics.jsonl, after what came before it, as `stage/name`."""
    from torch.utils.tensorboard.writer import SummaryWriter

    history: dict[str, list[dict[str, Any]]] = {}
    for row in run_dir.read_metrics():
        history.setdefault(row.pop("stage"), []).append(row)
    folder = run_dir.path / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(str(folder), flush_secs=10) as writer:

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
            for stage, rows in history.items():  # finished before this start
                for row in rows:
                    write(stage, row.pop("step"), row)
