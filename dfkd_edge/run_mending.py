"""The `distill` that goes on with a run or mends it, or that makes another one like it."""

from __future__ import annotations

import shlex
from pathlib import Path

from dfkd_edge.errors import ArtifactError


def distill_again(run: Path) -> str:
    """Name the `distill` that made a run, by the settings and the list that lie in it."""
    return f"{distill_like(run)} --output {shlex.quote(str(run))}"


def distill_like(run: Path) -> str:
    """Name a `distill` of the same list and settings, for flags that make another run of it."""
    words = ("dfkd-edge", "distill", "--config", run / "config.toml")
    return shlex.join([*map(str, words), "--classes", str(run / "classes.txt")])


def damaged_run(file: Path, run: Path) -> ArtifactError:
    """Say that a file of a run is not as its stage wrote it, and what makes it again."""
    return ArtifactError(
        "the run is damaged: this file is missing or changed",
        where=str(file),
        hint=f"this makes it again: {distill_again(run)}",
    )
