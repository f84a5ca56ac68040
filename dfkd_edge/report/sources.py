"""What a report is made of: every file of a run, its bundles and its devices, as far as there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfkd_edge.artifacts import PromptSet, StudentSettings, SurrogateSummary
from dfkd_edge.bundles.of_run import bundles_of, holds_student_of
from dfkd_edge.config.file import load_config
from dfkd_edge.config.settings import PipelineConfig
from dfkd_edge.errors import ArtifactError, DfkdEdgeError, faults_as_errors
from dfkd_edge.files import file_hash
from dfkd_edge.results.device import DeviceResult, distinct, kept_results
from dfkd_edge.results.kept import kept_checks
from dfkd_edge.runs.run_dir import RunDir, find_run, read_stages
from dfkd_edge.runtime.bundle_files import (
    BENCHMARK,
    MANIFEST,
    MARKER,
    VALIDATION,
    read_manifest,
    was_bundle,
)

Document = dict[str, Any]
MAX_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class BundleSource:
    """A bundle and what was measured on it."""

    folder: Path
    manifest: Document
    validation: Document | None
    """The ladder of `export`."""
    checks: tuple[Document, ...]
    """The ladders of the last `check` on labelled pictures, and of the last without."""
    calibration: Document | None
    benchmark: Document | None
    """Of `dfkd-edge benchmark`, on the host."""

    @property
    def provenance(self) -> Document:
        """Where the bundle comes from: run, settings, what was fitted for it."""
        return dict(self.manifest.get("provenance", {}))

    @property
    def sha256(self) -> str:
        """Hash of the manifest, as results of devices name it."""
        return file_hash(self.folder / MANIFEST)

    @property
    def ladders(self) -> list[tuple[str, Document]]:
        """The ladders with the command that climbed them, the one to trust most first."""
        found = [("check", check) for check in self.checks]
        found += [("export", self.validation)] if self.validation else []
        return sorted(found, key=lambda pair: pair[1]["measure"] != "top1")


@dataclass(frozen=True, slots=True)
class RunSource:
    """A run, finished or not."""

    path: Path
    config: PipelineConfig | None
    config_text: str
    student: StudentSettings | None
    evaluation: Document | None
    surrogates: SurrogateSummary | None
    """Their summary; the images are read one shard at a time."""
    prompts: PromptSet | None
    metrics: list[Document]


@dataclass(frozen=True, slots=True)
class Sources:
    """All that a report shows."""

    path: Path
    """The run or the bundle that the report is about."""
    run: RunSource | None
    bundles: tuple[BundleSource, ...]
    """The newest first."""
    devices: tuple[DeviceResult, ...]
    """Of bundles that the page shows."""
    other_devices: tuple[DeviceResult, ...] = ()
    """Of bundles that it does not show: earlier ones, or those of another run."""
    stale: tuple[BundleSource, ...] = ()
    """Bundles in the run that hold an earlier student: what they prove is not the run's."""
    sent: tuple[DeviceResult, ...] = ()
    """Of `devices` and `other_devices`, what was given: it is not kept yet."""
    unread: tuple[DfkdEdgeError, ...] = ()
    """Why results that lie here cannot be read."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        if self.run and self.run.student:
            return self.run.student.classes
        return next((tuple(bundle.manifest["classes"]) for bundle in self.bundles), ())

    @property
    def device_summaries(self) -> list[Document]:
        """What `report --json` says of the devices."""
        known = {bundle.sha256 for bundle in self.bundles}
        return [result.summary(known) for result in (*self.devices, *self.other_devices)]

    @property
    def student(self) -> StudentSettings | None:
        """Settings of the student; None before there is one."""
        if self.run and self.run.student:
            return self.run.student
        return next((_student(bundle.folder) for bundle in self.bundles), None)


def read_sources(path: Path, results: Sequence[DeviceResult] = ()) -> Sources:
    """Read a run or a bundle, and results of devices: those given, and those that lie there.

    Raises:
        RunDirError: the folder is neither.
        ArtifactError: a file is damaged, other than a result.
    """
    if is_bundle(path):
        found = [_read_bundle(path)]
        run, stale = _origin(found[0]), []
    else:
        if was_bundle(path):
            with faults_as_errors():
                read_manifest(path)  # says what is the matter with it
        run = _read_run(find_run(path))
        folders = sorted(filter(is_bundle, bundles_of(run.path)), key=_age)
        found = [_read_bundle(folder) for folder in folders]
        stale = [each for each in found if not holds_student_of(run.path, each.provenance)]
    bundles = [bundle for bundle in found if bundle not in stale]
    there, unread = kept_results(path, [bundle.folder for bundle in bundles])
    devices, others = _by_bundle(distinct([*there, *results]), bundles)
    return Sources(
        path.resolve(),
        run,
        bundles=tuple(bundles),
        devices=devices,
        other_devices=others,
        stale=tuple(stale),
        sent=tuple(results),
        unread=tuple(unread),
    )


def _by_bundle(
    results: Sequence[DeviceResult], bundles: Sequence[BundleSource]
) -> tuple[tuple[DeviceResult, ...], tuple[DeviceResult, ...]]:
    """Part results of these bundles from those of others."""
    known = {bundle.sha256 for bundle in bundles}
    own = tuple(result for result in results if result.bundle_sha256 in known)
    return own, tuple(result for result in results if result.bundle_sha256 not in known)


def is_bundle(path: Path) -> bool:
    """Whether a folder holds a finished bundle."""
    try:
        manifest = _read(path / MANIFEST) or {}
    except ArtifactError:
        return False
    return manifest.get("marker") == MARKER and manifest.get("status") != "incomplete"


def _age(bundle: Path) -> float:
    return -(bundle / MANIFEST).stat().st_mtime


def _read(path: Path) -> Document | None:
    """Read a JSON object; None where there is none.

    Raises:
        ArtifactError: it is damaged.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ArtifactError("file is larger than any of ours", where=str(path))
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError("file cannot be read as JSON", where=str(path)) from error
    if not isinstance(document, dict):
        raise ArtifactError("file holds no JSON object", where=str(path))
    return document


def _student(place: Path) -> StudentSettings | None:
    """Settings of the student in a run or a bundle, where there is one."""
    folder = place / "student"
    return StudentSettings.load(folder) if (folder / "student.json").is_file() else None


def _read_bundle(folder: Path) -> BundleSource:
    manifest = _read(folder / MANIFEST)
    assert manifest is not None
    validation, calibration, benchmark = (
        _read(folder / name) for name in (VALIDATION, "calibration.json", BENCHMARK)
    )
    checks = kept_checks(folder, _read)
    return BundleSource(folder.resolve(), manifest, validation, checks, calibration, benchmark)


def _read_run(path: Path) -> RunSource:
    config_path = path / "config.toml"
    has_prompts, images = "prompts" in read_stages(path), path / "surrogates"
    has_images = (images / "surrogates.json").is_file()
    return RunSource(
        path=path,
        config=load_config(config_path) if config_path.is_file() else None,
        config_text=config_path.read_text(encoding="utf-8") if config_path.is_file() else "",
        student=_student(path),
        evaluation=_read(path / "evaluation.json"),
        surrogates=SurrogateSummary.load(images) if has_images else None,
        prompts=PromptSet.load(path / "prompts") if has_prompts else None,
        metrics=RunDir(path, {}).read_metrics(),
    )


def _origin(bundle: BundleSource) -> RunSource | None:
    """The run that made a bundle, where it is still here with the same student."""
    try:
        path = find_run(Path(str(bundle.provenance["run"])))
        return _read_run(path) if holds_student_of(path, bundle.provenance) else None
    except (DfkdEdgeError, OSError, KeyError):
        return None
