"""What each stage leaves on disk: typed, atomically saved, verified when opened. No torch here.

Shape suffixes: N prompts or images, H rows, W columns, C = 3 channels (RGB), D embedding width,
K classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfkd_edge.errors import ArtifactError
from dfkd_edge.files import atomic_write, file_hash
from dfkd_edge.target_profiles.profile import Precision

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]


def save_tensors(
    path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file atomically."""
    from safetensors.numpy import save

    contiguous = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
    atomic_write(path, save(contiguous, metadata=dict(metadata or {})))


def load_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Read a safetensors file.

    Raises:
        ArtifactError: it is missing, cut short or not safetensors.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors: dict[str, NDArray[Any]] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise _unreadable(path) from error
    return tensors


def read_metadata(path: Path) -> dict[str, str] | None:
    """Metadata of a safetensors file; None when the file is missing or cut short."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(path) from error
    if not isinstance(document, dict):
        raise _unreadable(path)
    return document


def _unreadable(path: Path) -> ArtifactError:
    return ArtifactError(
        "file of the run is missing or damaged", where=str(path), hint="run the same command again"
    )


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Every class in every style, as points of the teacher's text space."""

    class_names: tuple[str, ...]
    style_labels: tuple[str, ...]
    embeddings: Floats
    """[N, D], unit rows."""
    class_index: Ints
    """[N]"""
    style_index: Ints
    """[N]"""
    diversity: dict[str, float]
    """mean_pairwise_cosine, effective_rank, class_consistency."""

    def save(self, folder: Path) -> list[Path]:
        """Write prompts.safetensors and prompts.json; returns both paths."""
        weights, table = folder / "prompts.safetensors", folder / "prompts.json"
        save_tensors(
            weights,
            {
                "embeddings": self.embeddings,
                "class_index": self.class_index,
                "style_index": self.style_index,
            },
        )
        document = {
            "classes": self.class_names,
            "styles": self.style_labels,
            "diversity": self.diversity,
        }
        atomic_write(table, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        return [weights, table]

    @classmethod
    def load(cls, folder: Path) -> PromptSet:
        """Read what `save` wrote.

        Raises:
            ArtifactError: a file is missing or damaged.
        """
        tensors, table = (
            load_tensors(folder / "prompts.safetensors"),
            _read_json(folder / "prompts.json"),
        )
        return cls(
            tuple(table["classes"]),
            tuple(table["styles"]),
            tensors["embeddings"],
            tensors["class_index"],
            tensors["style_index"],
            table["diversity"],
        )


@dataclass(frozen=True, slots=True)
class SurrogateSet:
    """Surrogate images that passed the filter, with what the teacher sees in them."""

    images: Bytes
    """[N, H, W, C], RGB."""
    class_index: Ints
    """[N], the class that was asked for."""
    style_index: Ints
    """[N], the style that was asked for."""
    drawing_index: Ints
    """[N], which of its class's drawings an image shows; -1: none."""
    embeddings: Floats
    """[N, D], the teacher's, unit rows."""
    is_heldout: NDArray[np.bool_]
    """[N], never trained on."""
    summary: dict[str, Any]
    """Counts, acceptance and diversity; what surrogates.json holds."""

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)


@dataclass(frozen=True, slots=True)
class StudentArtifact:
    """The distilled student as files: weights, and what is needed to build and feed it."""

    folder: Path
    settings: dict[str, Any]
    """timm_name, image_size_px, classes, logit_scale, init, teacher, num_parameters, ..."""

    @property
    def weights(self) -> Path:
        """The safetensors file; it holds the text head as `head_KD`."""
        return self.folder / "student.safetensors"

    def save_settings(self) -> Path:
        """Write student.json and return its path."""
        path = self.folder / "student.json"
        atomic_write(path, json.dumps(self.settings, indent=2, ensure_ascii=False) + "\n")
        return path

    @classmethod
    def load(cls, folder: Path) -> StudentArtifact:
        """Read student.json.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        return cls(folder, _read_json(folder / "student.json"))


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One converted model on disk: an ONNX graph, a TensorRT engine, or another format."""

    path: Path
    format: str
    """`onnx`, `engine`, or what an exporter from elsewhere makes."""
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
