"""Mirrors a run's metrics to TensorBoard while it goes on; the extra `tensorboard` brings it.

The event files follow from metrics.jsonl, so they are made anew at each start: a step that ran
twice is shown once.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from importlib.util import find_spec

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
    """Write what is in metrics.jsonl, then all that is added to it, as `stage/name` scalars."""
    from torch.utils.tensorboard.writer import SummaryWriter

    folder = run_dir.path / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(str(folder), flush_secs=10) as writer:
        shown: set[tuple[str, int]] = set()

        def follow(stage: str, step: int, values: dict[str, float]) -> None:
            if (stage, step) in shown:  # steps since the last checkpoint, which come out the same
                return
            shown.add((stage, step))
            for name, value in values.items():
                writer.add_scalar(f"{stage}/{name}", value, step)

        for row in run_dir.read_metrics():
            values = {name: value for name, value in row.items() if name not in ("stage", "step")}
            follow(row["stage"], row["step"], values)
        run_dir.followers.append(follow)
        try:
            yield
        finally:
            run_dir.followers.remove(follow)
