"""The run directory: which stages are done, metrics, log; safe against a kill at any moment.

Every write goes to a temporary file that replaces the old one, and the manifest names a stage only
after its files are in place.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dfkd_edge.config.settings import LATEST
from dfkd_edge.errors import (
    ArtifactError,
    DfkdEdgeError,
    EnvironmentLackingError,
    RunDirError,
    nearest,
)
from dfkd_edge.files import atomic_write, file_hash
from dfkd_edge.runs.lock import PROBE_S, holder_of, linked, locked
from dfkd_edge.runs.manifest import (
    ANOTHER_OUTPUT,
    FOLDERS,
    MARKER,
    STAGES,
    Manifest,
    StageRecord,
    damaged_files,
    read_manifest,
)
from dfkd_edge.runtime.counting import counted
from dfkd_edge.runtime.faults import MANIFEST
from dfkd_edge.runtime.plain_text import printable
from dfkd_edge.runtime.safe_files import append_line, is_leftover, temporary_beside
from dfkd_edge.version import __version__

MAX_STEP = 1 << 53  # Floats hold every whole number below, and figures are drawn with floats
CHECKPOINT = "checkpoint.safetensors"
"""File of a training that goes on; it goes when the stage is done."""


class RunDir:
    """One run on disk."""

    def __init__(self, path: Path, manifest: Manifest | None = None) -> None:
        """Wrap a folder; without a manifest only its logs may be written. `open_run` locks one."""
        self.path, self._manifest = path, manifest or Manifest("")
        self.followers: list[Callable[[str, int, dict[str, float]], None]] = []
        """Are given stage, step and values of each line of metrics that is added."""

    def stage_dir(self, stage: str) -> Path:
        """Folder of a stage; made when missing."""
        folder = self.path / stage
        if folder.is_symlink():  # of a run from elsewhere: it may lead anywhere
            raise linked(folder)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def is_complete(self, stage: str, key: str) -> bool:
        """Whether a stage is done for this key and its files are unchanged.

        A stage of an earlier run in this folder counts as one of this run from here on.
        """
        stages, earlier = self._manifest.stages, self._manifest.earlier
        record = stages.get(stage) or earlier.get(stage)
        if not record or record["key"] != key or damaged_files(self.path, {stage: record}):
            return False
        if stage not in stages:
            stages[stage] = earlier.pop(stage)
            self.save()
        return True

    def complete(self, stage: str, key: str, files: list[Path]) -> None:
        """Record a stage as done, with the hash of each of its files."""
        hashes = {f.relative_to(self.path).as_posix(): file_hash(f) for f in files}
        self._manifest.stages[stage] = {"key": key, "files": hashes}
        self._manifest.earlier.pop(stage, None)
        self.save()

    def restart(self) -> None:
        """Forget and delete what every stage has done."""
        self._manifest = Manifest(self._manifest.run_key)
        self.save()  # first: a kill from here on leaves files that no stage claims
        for stage in FOLDERS:
            shutil.rmtree(self.path / stage, ignore_errors=True)
        (self.path / "metrics.jsonl").unlink(missing_ok=True)

    def save(self) -> None:
        """Write the manifest."""
        fields = {"marker": MARKER, "version": __version__, **asdict(self._manifest)}
        atomic_write(self.path / MANIFEST, json.dumps(fields, indent=2, sort_keys=True) + "\n")

    def append_metrics(self, stage: str, step: int, values: dict[str, float]) -> None:
        """Add one line to metrics.jsonl."""
        line = json.dumps({"stage": stage, "step": step, **values})
        append_line(self.path / "metrics.jsonl", line)
        for follow in self.followers:
            follow(stage, step, values)

    def read_metrics(self) -> list[dict[str, Any]]:
        """Read metrics in order; a step that was run again after a kill counts once, the last."""
        path = self.path / "metrics.jsonl"
        rows: dict[tuple[str, int], dict[str, Any]] = {}
        for line in path.read_bytes().splitlines() if path.is_file() else []:
            # a kill cuts a line short, and a run from elsewhere may hold any
            with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                row = json.loads(line)
                if type(row["step"]) is not int or not 0 <= row["step"] <= MAX_STEP:
                    continue
                rows.pop((row["stage"], row["step"]), None)  # the later one also moves to the end
                rows[row["stage"], row["step"]] = row
        return list(rows.values())

    def log(self, text: str) -> None:
        """Add one line with the time to run.log."""
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        append_line(self.path / "run.log", printable(f"{stamp} {text}"))


def holds_run(path: Path, run_key: str) -> bool:
    """Whether the run of this key lies in a folder, finished or not."""
    manifest = read_manifest(path)
    return manifest is not None and manifest.run_key == run_key


def refuse_other_run(path: Path, run_key: str) -> None:
    """Leave a folder alone that is not ours, or that holds a run with another key.

    Raises:
        RunDirError: it is one of these.
        ArtifactError: its manifest is damaged.
    """
    manifest = read_manifest(path)
    if manifest and manifest.run_key != run_key:
        raise RunDirError(
            "folder holds a run with other settings or weights",
            where=str(path),
            hint=f"{ANOTHER_OUTPUT}, or --exist-ok to redo what differs",
        )


@contextlib.contextmanager
def open_run(
    path: Path, run_key: str, *, resume: bool, exist_ok: bool, wait_s: float = PROBE_S
) -> Iterator[RunDir]:
    """Make a run directory or go on with it, locked against a second process.

    Args:
        path: the directory itself.
        run_key: hash of everything that makes this run this run.
        resume: go on with what is done; False starts over.
        exist_ok: another run may lie there; its stages are redone where they differ.
        wait_s: how long another process may hold the lock.

    Raises:
        RunDirError: the folder is not ours, holds another run, or is in use.
    """
    read_manifest(path)  # a folder that is not ours gets no lock file
    with locked(path, wait_s):
        if not exist_ok:
            refuse_other_run(path, run_key)
        manifest = read_manifest(path)  # as the last holder of the lock left it
        run = RunDir(path, (manifest or Manifest(run_key)).of_run(run_key))
        if manifest and (not resume or manifest.run_key != run_key):
            (path / "evaluation.json").unlink(missing_ok=True)  # of the student that is replaced
        if manifest and not resume:
            run.restart()
        else:
            run.save()
        yield run


def tidy(path: Path) -> None:
    """Remove what a killed process left in a finished run, if nobody works there and one may."""
    with (
        contextlib.suppress(RunDirError, EnvironmentLackingError, OSError),
        locked(path, wait_s=0),  # which removes temporary files
    ):
        (path / "student" / CHECKPOINT).unlink(missing_ok=True)


def is_run(path: Path) -> bool:
    """Whether a folder holds a run whose manifest can be read."""
    try:
        return read_manifest(path) is not None
    except (RunDirError, ArtifactError):
        return False


def find_run(path: Path) -> Path:
    """Check that a folder holds a run and return its real path.

    Raises:
        RunDirError: there is none.
    """
    refuse_old_latest(path)
    if not (path / MANIFEST).is_file():
        raise RunDirError("no run here", where=str(path), hint=_nearest_run(path))
    read_manifest(path)
    return path.resolve()


def _nearest_run(path: Path) -> str:
    """Say which finished run beside a path may have been meant: of a like name, else the newest."""
    places = (path.parent, path.parent / "runs")
    # runs/latest is a link: it would name one run twice
    beside = [m for p in places for m in p.glob(f"*/{MANIFEST}") if not m.parent.is_symlink()]
    beside.sort(key=lambda m: m.stat().st_mtime, reverse=True)
    finished, unfinished = {}, ""
    for run in (manifest.parent for manifest in beside):
        with contextlib.suppress(RunDirError, ArtifactError):
            holder = holder_of(run)
            if not holder and {"surrogates", "student"} <= read_stages(run).keys():
                finished[run.name] = run
            elif not unfinished:
                then = f"{holder} works in it" if holder else f"{distill_again(run)} goes on"
                unfinished = f"{run} is unfinished: {then}"
    if finished:
        name = next(iter(nearest(path.name, finished) or finished))
        return f"name a run, such as {finished[name]}"
    return unfinished or "run dfkd-edge distill first, or name a run that --output put elsewhere"


def read_stages(path: Path) -> dict[str, StageRecord]:
    """Stages that a run has finished; none without a run."""
    manifest = read_manifest(path)
    return manifest.stages if manifest else {}


def require_stages(path: Path, stages: set[str]) -> None:
    """Check that a run has finished these stages, and that their files are there.

    Raises:
        RunDirError: it has not.
        ArtifactError: a file is missing.
    """
    finished = read_stages(path)
    missing = stages - finished.keys()
    if missing:
        raise RunDirError(
            f"the run has no finished {' and no '.join(sorted(missing))}",
            where=str(path),
            hint=f"this goes on from where it stopped: {distill_again(path)}",
        )
    for name in (name for stage in sorted(stages) for name in finished[stage]["files"]):
        if not (path / name).is_file():
            raise damaged_run(path / name, path)


def point_latest(runs: Path, run: Path) -> None:
    """Let runs/latest name the newest run (a relative link, replaced atomically)."""
    link, temporary = runs / LATEST.name, temporary_beside(runs / LATEST.name)
    if link.is_dir() and not link.is_symlink():
        return  # of the user, who is told by `refuse_old_latest` when it would be taken for newest
    with contextlib.suppress(OSError):  # no links on some file systems; --output names a run too
        for left in filter(is_leftover, runs.glob(f".{LATEST.name}.*.tmp")):
            left.unlink()
        try:
            temporary.symlink_to(os.path.relpath(run, runs))
            temporary.replace(link)  # a link cannot be changed in place; a rename is atomic
        finally:
            temporary.unlink(missing_ok=True)


def refuse_old_latest(path: Path) -> None:
    """Refuse a `latest` that is a folder beside other runs: it never names the newest.

    A copy or an archive turns the link into the run that was the newest then.

    Raises:
        RunDirError: it is one.
    """
    if path.name != LATEST.name or path.is_symlink() or not (path / MANIFEST).is_file():
        return
    others = [m.parent for m in path.parent.glob(f"*/{MANIFEST}") if m.parent != path]
    if others:
        newest = max(others, key=lambda run: (run / MANIFEST).stat().st_mtime)
        raise RunDirError(
            "is a folder, not the link to the newest run: it may be an old one",
            where=str(path),
            hint=f"name a run, such as {newest}, or rename this folder",
        )


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


@contextlib.contextmanager
def noting_what_is_kept(run: Path) -> Iterator[None]:
    """Note what an interrupted command leaves in its run directory."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.add_note(f"kept: {', '.join(kept_in(run)) or 'nothing yet'}")
        raise


def kept_in(run: Path) -> list[str]:
    """Name what the next call of the command finds done in a run directory."""
    with contextlib.suppress(DfkdEdgeError):
        stages = read_stages(run)
        kept = [text for stage, text in STAGES.items() if stage in stages]
        if "surrogates" not in stages:
            num_shards = len(list((run / "surrogates").glob("shard-*.safetensors")))
            kept += [f"{counted(num_shards, 'shard')} of surrogate images"] if num_shards else []
        if "student" not in stages and (run / "student" / CHECKPOINT).is_file():
            kept.append("the student as it was seconds ago")
        return kept
    return []
