"""What a teacher sees in the memory's names and drawings, cached on disk between commands.

The embeddings depend on no class list, and computing them takes longer than the rest of `classes
lint`. A cache that cannot be read, is corrupted or cannot be written costs time, nothing else.

Shape suffixes: M drawings, V distinct names, D embedding width.
"""

import contextlib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from torch import Tensor

from dfkd_edge import assets
from dfkd_edge.artifacts import load_tensors, read_metadata, save_tensors
from dfkd_edge.errors import ArtifactError, EnvironmentLackingError
from dfkd_edge.files import content_hash
from dfkd_edge.machine.caches import MAX_BYTES, own_cache
from dfkd_edge.networks.mixed_precision import has_fast_bfloat16
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.runs.key import content_of, teacher_content
from dfkd_edge.runtime.safe_files import (
    bound_cache,
    close_cache,
    remove_leftovers,
    used_again,
    why_not_private,
)
from dfkd_edge.version import __version__

Place = tuple[int, int]  # A drawing: number of its sheet, number in the sheet
DIGEST = "sha256"  # Hash of the tensors in the metadata: safetensors has none of its own


def cache_path(teacher: Teacher, name_text: str) -> Path:
    """Name a teacher's file by everything that its embeddings follow from."""
    config, device = teacher.config, teacher.device.type
    key = content_hash(
        (config.name, config.pretrained, teacher_content(config)),
        (content_of(assets.EXEMPLARS), name_text),
        (__version__, open_clip.__version__, torch.__version__),
        (device, has_fast_bfloat16(device)),  # images are embedded in bfloat16 where it is fast
    )
    return own_cache("drawings") / f"{key}.safetensors"


def read_cache(path: Path) -> tuple[Tensor | None, dict[Place, Tensor]]:
    """Read the embeddings of the names, [V, D] or None without any, and of drawings, [D] each."""
    try:
        if any(map(why_not_private, (path.parent.resolve(), path))):
            return None, {}  # others may have laid it there
        tensors = load_tensors(path)
        if (read_metadata(path) or {}).get(DIGEST) != _digest(tensors):
            return None, {}
        name_VD = torch.from_numpy(tensors["names"])
        used_again(path)
        places, shown_MD = tensors["places"].tolist(), torch.from_numpy(tensors["drawings"])
    except (ArtifactError, OSError, KeyError, TypeError, ValueError):
        return None, {}
    return name_VD, {(at, number): row for (at, number), row in zip(places, shown_MD, strict=True)}


def write_cache(path: Path, name_VD: Tensor, shown: Mapping[Place, Tensor]) -> None:
    """Write the embeddings of the names and of the drawings seen so far, where that is possible."""
    rows = torch.stack(list(shown.values())) if shown else name_VD[:0]
    tensors = {
        "names": name_VD.cpu().numpy(),
        "places": np.array(list(shown), np.int64).reshape(-1, 2),  # (0, 2) where none was seen
        "drawings": rows.cpu().numpy(),
    }
    # a read-only home: the next command pays
    with contextlib.suppress(EnvironmentLackingError, OSError):
        close_cache(path.parent)
        remove_leftovers(path.parent)
        save_tensors(path, tensors, {DIGEST: _digest(tensors)}, mode=0o600)
        bound_cache(path.parent, MAX_BYTES["drawings"])


def _digest(tensors: Mapping[str, NDArray[Any]]) -> str:
    """Hash names, types, shapes and values, in hex."""
    digest = hashlib.sha256()
    for name, array in sorted(tensors.items()):  # the file has an order of its own
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
