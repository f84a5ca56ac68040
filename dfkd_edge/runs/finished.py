"""A finished run, opened again: what `export` and `check` need of it."""

from dataclasses import dataclass
from pathlib import Path

from dfkd_edge.artifacts import StudentArtifact, SurrogateSet
from dfkd_edge.class_names import ClassNames, read_class_names
from dfkd_edge.config.file import load_config
from dfkd_edge.config.settings import PipelineConfig
from dfkd_edge.errors import ArtifactError
from dfkd_edge.runs.manifest import damaged_files
from dfkd_edge.runs.run_dir import damaged_run, find_run, read_stages, require_stages
from dfkd_edge.runs.surrogates import read_surrogates


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """The artifacts of `distill`."""

    path: Path
    config: PipelineConfig  # As the run was made
    class_names: ClassNames
    student: StudentArtifact
    surrogates: SurrogateSet


def open_finished_run(path: Path) -> FinishedRun:
    """Open a run whose student is ready, every file of it verified.

    Raises:
        RunDirError: there is no run, or its student is not finished.
        ArtifactError: a file of it is missing or damaged.
    """
    path = find_run(path)
    require_stages(path, {"surrogates", "student"})
    damaged = damaged_files(path, read_stages(path))
    if damaged:
        raise damaged_run(path / damaged[0], path)
    if not (path / "config.toml").is_file():
        raise ArtifactError("settings of the run are missing", where=str(path / "config.toml"))
    config = load_config(path / "config.toml")
    class_names = read_class_names(path / "classes.txt")
    student = StudentArtifact.load(path / "student")
    if student.settings.classes != class_names.names:
        raise ArtifactError(
            "classes are not those of the student",
            where=str(path / "classes.txt"),
            hint="the same distill command writes them again",
        )
    surrogates = read_finished_surrogates(path, class_names)
    return FinishedRun(path, config, class_names, student, surrogates)


def read_finished_surrogates(path: Path, class_names: ClassNames) -> SurrogateSet:
    """Read the surrogate images of a finished run.

    Raises:
        RunDirError: the run is not finished.
        ArtifactError: a file of them is missing or damaged.
    """
    require_stages(path, {"surrogates", "student"})
    key = read_stages(path)["surrogates"]["key"]
    return read_surrogates(path / "surrogates", class_names.names, key)
