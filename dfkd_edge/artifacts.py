"""What each stage leaves on disk: typed, atomically saved, verified when opened. No torch here.

Shape suffixes: N prompts or images, H rows, W columns, C = 3 channels (RGB), D embedding width,
K classes.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from dfkd_edge.config.settings import StudentInit
from dfkd_edge.errors import ArtifactError
from dfkd_edge.files import atomic_write, file_hash, read_json
from dfkd_edge.runtime.safe_files import reading
from dfkd_edge.target_profiles.profile import Precision

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Scalar = TypeVar("Scalar", bound=np.generic)
Read = TypeVar("Read")
Words = tuple[str, ...]


def save_tensors(
    path: Path,
    tensors: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, str] | None = None,
    mode: int = 0o666,
) -> None:
    """Write a safetensors file atomically; `mode` is what it permits, less the umask."""
    from safetensors.numpy import save

    contiguous = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
    atomic_write(path, save(contiguous, metadata=dict(metadata or {})), mode=mode)


def load_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Read a safetensors file.

    Raises:
        ArtifactError: it is missing, cut short or not safetensors.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        reading(path).close()  # the library would wait for a pipe
        tensors: dict[str, NDArray[Any]] = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, MemoryError) as error:
        raise unreadable(path) from error
    return tensors


def read_metadata(path: Path) -> dict[str, str] | None:
    """Metadata of a safetensors file; None when the file is missing or cut short."""
    from safetensors import SafetensorError, safe_open

    try:
        reading(path).close()
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError):
        return None


RUN_AGAIN = "run the same command again"


def unreadable(path: Path) -> ArtifactError:
    """Say that a file of the run is not as its stage wrote it."""
    return ArtifactError("file of the run is missing or damaged", where=str(path), hint=RUN_AGAIN)


def _write_json(path: Path, document: Mapping[str, Any]) -> Path:
    atomic_write(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    return path


@contextmanager
def _reading(path: Path) -> Iterator[Mapping[str, Any]]:
    """Parse a JSON object; a wrong file, or a field that is not in it, is one error."""
    try:
        yield read_json(path, RUN_AGAIN)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise unreadable(path) from error


def _read_as(kind: type[Read], value: object) -> Read:
    """Read a value as a type; a table may hold more than the fields of its dataclass.

    Raises:
        ValueError: a part of it has another type, or is missing.
    """
    from pydantic import TypeAdapter  # a tenth of a second, where something is read

    # strictly, and as JSON: its lists are tuples, and no text or truth is a number
    read: Read = TypeAdapter(kind).validate_json(json.dumps(value), strict=True)
    return read


@dataclass(frozen=True, kw_only=True, slots=True)
class Diversity:
    """How much the styles of a prompt set differ, and whether the classes survive them."""

    mean_pairwise_cosine: float
    """Among the styles of a class, mean over classes: lower is more diverse; 1 for one style."""
    effective_rank: float
    """exp of the entropy of the prompts' spectrum, each less the mean of its class; at least 1."""
    class_consistency: float
    """Share of the prompts whose nearest class, among the plain ones, is their own."""


MAX_SIDE_PX, MAX_EMBED_DIM, MAX_CLASSES = 1_024, 65_536, 1_000  # Of a student, above any
PROMPT_ARRAYS = ("embeddings", "class_index", "style_index")


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Every class in every style, as points of the teacher's text space."""

    class_names: tuple[str, ...]
    style_labels: tuple[str, ...]
    embeddings: Floats  # [N, D], unit rows
    class_index: Ints  # [N]
    style_index: Ints  # [N]
    diversity: Diversity

    def save(self, folder: Path) -> list[Path]:
        """Write prompts.safetensors and prompts.json; returns both paths."""
        weights, table = folder / "prompts.safetensors", folder / "prompts.json"
        save_tensors(weights, {name: getattr(self, name) for name in PROMPT_ARRAYS})
        words = {"classes": self.class_names, "styles": self.style_labels}
        return [weights, _write_json(table, {**words, "diversity": asdict(self.diversity)})]

    @classmethod
    def load(cls, folder: Path) -> PromptSet:
        """Read what `save` wrote.

        Raises:
            ArtifactError: a file is missing or damaged.
        """
        tensors = load_tensors(folder / "prompts.safetensors")
        with _reading(folder / "prompts.json") as table:
            diversity = _read_as(Diversity, table["diversity"])
            arrays = {name: tensors[name] for name in PROMPT_ARRAYS}
            names, styles = (_read_as(Words, table[key]) for key in ("classes", "styles"))
            found = cls(names, styles, diversity=diversity, **arrays)
            if not found.is_whole():
                raise ValueError("arrays do not fit")
            return found

    def is_whole(self) -> bool:
        """Whether each prompt is of a class and a style that have names."""
        named = ((self.class_names, self.class_index), (self.style_labels, self.style_index))
        return self.embeddings.ndim == 2 and all(
            index_N.shape == self.embeddings.shape[:1]
            and index_N.dtype == np.int64
            and 0 <= index_N.min(initial=0) <= index_N.max(initial=0) < len(names)
            for names, index_N in named
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassCount:
    """What became of the candidates of one class."""

    name: str
    num_images: int  # Kept, of which the student learns from those that are not held out
    num_drawn: int  # Kept images that show a drawing
    acceptance: float  # Share of the candidates that the teacher recognises
    drawings: Mapping[str, int] | None = None
    """Name in the memory -> its drawings that images start from; None where no memory is used."""
    num_of_its_name: int = 0  # Of these drawings, those that carry the class's name or a synonym
    num_of_its_kind: int = 0  # Of these drawings, others whose name is that of its kind
    num_alike: int = 0  # Of these drawings, others that only look like it to the teacher

    def to_json(self) -> dict[str, Any]:
        """Return an entry of `classes` in surrogates.json."""
        document = asdict(self)
        if self.drawings is None:
            for name in ("drawings", "num_of_its_name", "num_of_its_kind", "num_alike"):
                del document[name]
        return document


@dataclass(frozen=True, kw_only=True, slots=True)
class FewShotSummary:
    """The real pictures that joined the surrogate images."""

    num_pictures: int
    num_copies: int  # Times that each of them stands among the training images
    is_labelled: bool  # Whether their classes come from folders; otherwise from the teacher
    num_classes: int
    teacher_agreement: float  # Share of the pictures whose class is the teacher's first answer
    pictures: Mapping[str, str]  # Path -> SHA-256 in hex


@dataclass(frozen=True, kw_only=True, slots=True)
class SurrogateSummary:
    """What surrogates.json holds."""

    content: str  # Hash of all that the images depend on, and of real pictures that joined
    num_candidates: int
    num_images: int  # Kept
    num_heldout: int  # Kept, and never trained on
    num_unrecognised: int  # Kept all the same; `num_stand_ins` in the file
    acceptance: float  # Share of the candidates that the teacher recognises, before the filter
    mean_distance_within_class: float
    """Mean of 1 - cosine over pairs of kept images of a class, mean over classes."""
    classes: tuple[ClassCount, ...]
    few_shot: FewShotSummary | None = None
    """In memory and in `--json` alone: the file describes the surrogates as they were made."""

    @property
    def num_learning(self) -> int:
        """Kept images that are not held out."""
        return self.num_images - self.num_heldout

    def to_json(self) -> dict[str, Any]:
        """Return the document of surrogates.json."""
        document = {
            "num_stand_ins" if name == "num_unrecognised" else name: value
            for name, value in asdict(self).items()
        }
        document["classes"] = [entry.to_json() for entry in self.classes]
        if self.few_shot is None:
            del document["few_shot"]
        return document

    def save(self, folder: Path) -> Path:
        """Write surrogates.json and return its path."""
        return _write_json(folder / "surrogates.json", self.to_json())

    @classmethod
    def load(cls, folder: Path) -> SurrogateSummary:
        """Read surrogates.json.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        with _reading(folder / "surrogates.json") as document:
            renamed = {**document, "num_unrecognised": document["num_stand_ins"], "few_shot": None}
            return _read_as(cls, renamed)


class RowStore(ABC, Generic[Scalar]):
    """A table [N, ...] that is read by rows: the whole of it may be larger than the memory."""

    shape: tuple[int, ...]
    dtype: np.dtype[Scalar]

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all rows, where they were held in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    @abstractmethod
    def rows(self, row_N: Ints) -> NDArray[Scalar]:
        """Read these rows into a new array, in this order, one as often as it is named.

        Several threads may read at once.

        Raises:
            ArtifactError: a file that holds a row is missing or damaged.
        """


@dataclass(frozen=True, slots=True)
class SurrogateSet:
    """Surrogate images that passed the filter, with what the teacher sees in them."""

    images: RowStore[np.uint8]  # [N, H, W, C], RGB
    class_index: Ints  # [N], the class that was asked for
    style_index: Ints  # [N], the style that was asked for
    drawing_index: Ints  # [N], which of its class's drawings an image shows; -1: none
    embeddings: RowStore[np.float32]  # [N, D], the teacher's, unit rows
    is_heldout: NDArray[np.bool_]  # [N], never trained on
    summary: SurrogateSummary

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentSettings:
    """What student.json holds: all that is needed to build and feed the network, and its origin."""

    student: str  # As it was asked for: a name of our table or of timm
    timm_name: str  # Backbone
    image_size_px: int  # Side of the input
    classes: tuple[str, ...]
    logit_scale: float  # The teacher's: logits are this times the cosine with the text head
    embed_dim: int  # D of the teacher
    init: StudentInit
    num_steps: int
    teacher: str  # Its name in the settings
    num_parameters: int  # Of backbone and projection, without the text head
    teacher_num_parameters: int  # Of the teacher's image tower

    @classmethod
    def load(cls, folder: Path) -> StudentSettings:
        """Read student.json.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        with _reading(folder / "student.json") as document:
            found = _read_as(cls, document)
            if not found.is_in_range():
                raise ValueError("out of range")
            return found

    def is_in_range(self) -> bool:
        """Whether a network of these sizes can be built; what comes from elsewhere may ask for any.

        Raises:
            TypeError: a value has another type.
        """
        counts = (self.num_steps, self.num_parameters, self.teacher_num_parameters)
        texts = (self.student, self.timm_name, self.init, self.teacher, *self.classes)
        return (
            1 <= self.image_size_px <= MAX_SIDE_PX
            and 1 <= self.embed_dim <= MAX_EMBED_DIM
            and 1 <= len(self.classes) <= MAX_CLASSES
            and 0 < self.logit_scale < math.inf
            and min(counts) >= 0
            and all(type(n) is int for n in (self.image_size_px, self.embed_dim, *counts))
            and all(isinstance(text, str) for text in texts)
        )


def student_weights(folder: Path) -> Path:
    """Path of a student's safetensors file; it holds the text head as `head_KD`."""
    return folder / "student.safetensors"


@dataclass(frozen=True, slots=True)
class StudentArtifact:
    """The distilled student as files: weights, and what is needed to build and feed it."""

    folder: Path
    settings: StudentSettings

    @property
    def weights(self) -> Path:
        """The safetensors file; see `student_weights`."""
        return student_weights(self.folder)

    def save_settings(self) -> Path:
        """Write student.json and return its path."""
        return _write_json(self.folder / "student.json", asdict(self.settings))

    @classmethod
    def load(cls, folder: Path) -> StudentArtifact:
        """Read student.json.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        return cls(folder, StudentSettings.load(folder))


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One converted model on disk: an ONNX graph, a TensorRT engine, or another format."""

    path: Path
    format: str  # `onnx`, `engine`, or what an exporter from elsewhere makes
    precision: Precision
    notes: dict[str, Any]
    """How it was made: exporter, opset, ir_version, batch, float_nodes, ..., for the manifest."""

    @property
    def sha256(self) -> str:
        """Hash of the file, in hex."""
        return file_hash(self.path)

    @property
    def size_bytes(self) -> int:
        """Size of the file."""
        return self.path.stat().st_size
