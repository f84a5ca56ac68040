"""Reads all that a report shows: a run, its bundles and what devices sent, as far as there."""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from dfkd_edge.artifacts import FewShotSummary, PromptSet, StudentSettings, SurrogateSummary
from dfkd_edge.bundles.opening import bundles_of
from dfkd_edge.class_names import read_class_names
from dfkd_edge.config.file import load_config
from dfkd_edge.config.settings import FewShotConfig, PipelineConfig
from dfkd_edge.errors import DfkdEdgeError, faults_as_errors
from dfkd_edge.files import read_json
from dfkd_edge.preflight import run_name
from dfkd_edge.report.sources import (
    BundleSource,
    Calibration,
    Curves,
    ExportRecord,
    RunSource,
    Sources,
)
from dfkd_edge.results.benchmark import Benchmark
from dfkd_edge.results.codec import Result, from_json
from dfkd_edge.results.device import distinct, kept_results, read_result
from dfkd_edge.results.kept import EVALUATION, Int8Notes, kept_checks, read_ladder
from dfkd_edge.results.ladder import Ladder
from dfkd_edge.runs.run_dir import RunDir, distill_again, find_run, read_stages
from dfkd_edge.runtime.bundle_files import (
    BENCHMARK,
    MANIFEST,
    VALIDATION,
    read_bundle,
    read_manifest,
    was_bundle,
)
from dfkd_edge.runtime.bundle_manifest import is_number
from dfkd_edge.runtime.faults import Fault
from dfkd_edge.runtime.safe_files import real_path

MAX_DRAWN = 1e100  # Of a value: figures multiply and subtract such


def gather(path: Path, results: Sequence[Path] = ()) -> Sources:
    """Read all that the report of a run or bundle shows; a bundle inside a run has the run's.

    Args:
        path: a run, or a bundle.
        results: files that check.pyz wrote on devices, beside those that lie in the run.

    Raises:
        RunDirError: the folder is neither.
        UsageError: a given result is not there.
        ArtifactError: a file is damaged, other than a result that was kept earlier.
    """
    path, sent = real_path(path), tuple(map(read_result, results))
    if is_bundle(path) and path.parent.name == "bundles":
        run_folder = path.parent.parent
        path = run_folder if (run_folder / "config.toml").is_file() else path
    if is_bundle(path) or was_bundle(path):  # of a damaged one, reading says what is the matter
        found = [read_bundle_source(path)]
        run, stale = _origin(found[0]), []
    else:
        run = _read_run(find_run(path))
        folders = filter(is_bundle, bundles_of(run.path))
        newest_first = sorted(folders, key=lambda folder: -(folder / MANIFEST).stat().st_mtime)
        found = [read_bundle_source(folder) for folder in newest_first]
        stale = [each for each in found if not each.is_of(run.path)]
    bundles = [bundle for bundle in found if bundle not in stale]
    there, unread = kept_results(path, [bundle.folder for bundle in bundles])
    known = {bundle.bundle.sha256 for bundle in bundles}
    devices = distinct([*there, *sent])
    return Sources(
        path,
        run,
        bundles=tuple(bundles),
        devices=tuple(result for result in devices if result.bundle_sha256 in known),
        other_devices=tuple(result for result in devices if result.bundle_sha256 not in known),
        stale=tuple(stale),
        sent=sent,
        unread=tuple(unread),
    )


def is_bundle(path: Path) -> bool:
    """Whether a folder holds a finished bundle with a whole manifest."""
    try:
        read_manifest(path)
    except Fault:
        return False
    return True


def read_bundle_source(folder: Path) -> BundleSource:
    """Read a bundle; its files are not compared with their hashes.

    Raises:
        ArtifactError: a file is damaged.
    """
    with faults_as_errors():
        bundle = read_bundle(folder.resolve())
    calibration, benchmark = bundle.folder / "calibration.json", bundle.folder / BENCHMARK
    return BundleSource(
        bundle,
        from_json(ExportRecord, bundle.manifest.provenance, bundle.folder / MANIFEST),
        from_json(Int8Notes, bundle.manifest.model_notes.get("int8", {}), bundle.folder / MANIFEST),
        read_ladder(bundle.folder / VALIDATION),
        kept_checks(bundle.folder),
        _read(Calibration, calibration),
        _read(Benchmark, benchmark),
    )


def _read(kind: type[Result], path: Path, hint: str = "") -> Result | None:
    """Read a typed file; None where there is none."""
    return from_json(kind, read_json(path, hint), path) if path.is_file() else None


def _read_run(path: Path) -> RunSource:
    file, stages = path / "config.toml", read_stages(path)
    config = load_config(file) if file.is_file() else None
    has_student = (path / "student" / "student.json").is_file()
    has_images = (path / "surrogates" / "surrogates.json").is_file()
    return RunSource(
        path=path,
        classes=_listed(path),
        config=config,
        student=StudentSettings.load(path / "student") if has_student else None,
        evaluation=read_ladder(path / EVALUATION),
        zero_shot=_zero_shot(path, config) if config and config.few_shot.images else None,
        surrogates=SurrogateSummary.load(path / "surrogates") if has_images else None,
        real=_read(FewShotSummary, path / "few_shot" / "few_shot.json", distill_again(path)),
        prompts=PromptSet.load(path / "prompts") if "prompts" in stages else None,
        curves=_read_curves(path),
    )


def _listed(path: Path) -> tuple[str, ...]:
    """Names in the list of a run; none before there is one."""
    file = path / "classes.txt"
    return read_class_names(file).names if file.is_file() else ()


def _zero_shot(path: Path, config: PipelineConfig) -> Ladder | None:
    """Evaluation of the run without real pictures, where `distill` would put that by default."""
    with contextlib.suppress(DfkdEdgeError):  # another run's fault is not of this page
        names = read_class_names(path / "classes.txt")
        twin = run_name(dataclasses.replace(config, few_shot=FewShotConfig()), names)
        return read_ladder(path.parent / twin / EVALUATION)
    return None


def _read_curves(path: Path) -> Curves:
    curves: Curves = {}
    for row in RunDir(path).read_metrics():
        for key, value in row.items():
            # no text; and a training that diverged writes NaN
            if key not in ("stage", "step") and is_number(value, -MAX_DRAWN, MAX_DRAWN):
                curves.setdefault((row["stage"], key), []).append((row["step"], value))
    return curves


def _origin(source: BundleSource) -> RunSource | None:
    """The run that made a bundle, where it is still here with the same student."""
    with contextlib.suppress(DfkdEdgeError, OSError):  # a bundle outlives its run, and travels
        path = find_run(Path(source.record.run))
        if source.is_of(path):
            return _read_run(path)
    return None
