"""Where a bundle comes from: what it was made of, its run and images, its graphs; no torch."""

from dataclasses import dataclass
from pathlib import Path

from dfkd_edge.artifacts import ModelFile, student_weights
from dfkd_edge.bundles.opening import holds_student_of
from dfkd_edge.class_names import ClassNames
from dfkd_edge.config.settings import ExportConfig, TeacherConfig
from dfkd_edge.errors import ArtifactError, faults_as_errors
from dfkd_edge.files import read_json
from dfkd_edge.results.codec import from_json
from dfkd_edge.results.swap import KEY, Swap
from dfkd_edge.runs.manifest import damaged_files
from dfkd_edge.runs.run_dir import read_stages, require_stages
from dfkd_edge.runtime.bundle_files import MANIFEST, VALIDATION, Bundle

AGAIN = "export it again"


@dataclass(frozen=True, slots=True)
class Origin:
    """What a bundle was made of, as its manifest says."""

    teacher: TeacherConfig
    teacher_content: str  # Hash of its local files, where it was one
    classes: ClassNames
    config: ExportConfig
    seed: int
    swap: Swap | None = None  # Where its classes took the place of those of its run


@dataclass(frozen=True, slots=True)
class _Recorded:
    teacher: TeacherConfig
    prompts: tuple[str | None, ...]
    config: ExportConfig
    seed: int
    teacher_content: str = ""
    swap: Swap | None = None


def read_origin(bundle: Bundle) -> Origin:
    """Read where a bundle comes from.

    Raises:
        ArtifactError: it does not say.
    """
    found = from_json(_Recorded, bundle.manifest.provenance, bundle.folder / MANIFEST, AGAIN)
    if len(found.prompts) != len(bundle.classes):
        what, where = "bundle has not one prompt a class", bundle.folder / MANIFEST
        raise ArtifactError(what, where=str(where), hint=AGAIN)
    names = ClassNames(bundle.classes, found.prompts)
    made = (found.teacher, found.teacher_content, names, found.config, found.seed)
    return Origin(*made, swap=found.swap)


def run_with_surrogates(bundle: Bundle) -> Path:
    """Find the run that made a bundle, its surrogate images as they were written.

    Raises:
        DfkdEdgeError: the run is gone or has another student, or a file of it is damaged.
        OSError: a file cannot be opened.
    """
    provenance = bundle.manifest.provenance
    run, swapped = Path(str(provenance.get("run"))), provenance.get(KEY)
    if not student_weights(run / "student").is_file():
        raise ArtifactError("no student there", where=str(run))
    if not holds_student_of(run, swapped if isinstance(swapped, dict) else provenance):
        raise ArtifactError("the run has another student by now", where=str(run))
    require_stages(run, {"surrogates", "student"})
    damaged = damaged_files(run, {"surrogates": read_stages(run)["surrogates"]})
    if damaged:
        raise ArtifactError("file of the run is missing or damaged", where=str(run / damaged[0]))
    return run


def calibrated_images(bundle: Bundle) -> frozenset[str]:
    """Digests of the images that set activation ranges; none in a bundle without INT8."""
    return frozenset(_listed(bundle.folder / "calibration.json", "image_digests"))


def measured_again(bundle: Bundle) -> list[str]:
    """Domains that `export` showed more images, if it measured on surrogates."""
    return _listed(bundle.folder / VALIDATION, "measured_again")


def _listed(path: Path, key: str) -> list[str]:
    return list(read_json(path).get(key, ())) if path.is_file() else []


def graphs(bundle: Bundle) -> list[ModelFile]:
    """List the graphs of a bundle, in the order of conversion."""
    held, notes = bundle.manifest.models, bundle.manifest.model_notes
    order = [name for name in ("fp32", "fp16", "int8") if name in held]
    with faults_as_errors():
        return [ModelFile(bundle.model_path(n), "onnx", n, notes.get(n, {})) for n in order]
