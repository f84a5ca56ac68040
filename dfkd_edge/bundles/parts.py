"""The files of a bundle that are packed from arrays or sources: golden.npz, test card, check.pyz.

Shape suffixes: G golden images, S side, C = 3 channels, K classes.
"""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfkd_edge.artifacts import Bytes, Floats
from dfkd_edge.runtime import preprocess
from dfkd_edge.target_profiles.profile import Precision


@dataclass(frozen=True, kw_only=True, slots=True)
class GoldenSet:
    """Images whose logits the device must reproduce."""

    images: Bytes  # [G, S, S, C], RGB at the student's side
    teacher_logits: Floats  # [G, K]
    student_logits: Floats  # [G, K], of the FP32 graph
    precision_logits: Mapping[Precision, Floats] = field(default_factory=dict)
    """[G, K] of each converted graph, such as `int8`."""


def golden_bytes(golden: GoldenSet, side_px: int) -> bytes:
    """Pack golden.npz, with the test card as the model takes it; equal arrays, equal bytes."""
    from PIL import Image

    arrays: dict[str, NDArray[Any]] = {
        "images": golden.images,
        "teacher_logits": golden.teacher_logits.astype(np.float32),
        "student_logits": golden.student_logits.astype(np.float32),
        "test_card": preprocess.resized(Image.fromarray(preprocess.test_card(side_px)), side_px),
    }
    for precision, logits in golden.precision_logits.items():
        arrays[f"{precision}_logits"] = logits.astype(np.float32)
    files = {}
    for key, array in arrays.items():  # numpy.savez would write the time of day into the archive
        raw = io.BytesIO()
        np.lib.format.write_array(raw, np.ascontiguousarray(array), allow_pickle=False)
        files[f"{key}.npy"] = raw.getvalue()
    return _zipped(files)


def card_png(side_px: int) -> bytes:
    """Draw the test card, which tells how a device prepares pictures."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(preprocess.test_card(side_px)).save(stream, "PNG")
    return stream.getvalue()


def check_archive() -> bytes:
    """Zip the runtime into one file that `python3 check.pyz` runs; equal sources, equal bytes."""
    core = Path(__file__).parents[1]
    sources = {
        f"dfkd_edge/runtime/{path.name}": path.read_bytes()
        for path in sorted((core / "runtime").glob("*.py"))
    }
    sources["dfkd_edge/__init__.py"] = b""  # the real one imports what no device has
    sources["__main__.py"] = (core / "runtime" / "__main__.py").read_bytes()
    # a zip is read from its end, so a line for the shell may stand before it (PEP 441)
    return b"#!/usr/bin/env python3\n" + _zipped(dict(sorted(sources.items())))


def _zipped(files: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, date_time=(2020, 1, 1, 0, 0, 0))  # equal bytes each time
            # what is to tell of damage must be readable itself, whatever byte of it was flipped
            is_start = name == "__main__.py"
            entry.compress_type = zipfile.ZIP_STORED if is_start else zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16  # The upper half holds Unix permissions
            archive.writestr(entry, content)
    return stream.getvalue()
