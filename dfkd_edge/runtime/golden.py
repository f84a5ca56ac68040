"""Does the model give here what it gave on the host? And if not, why?

Shape suffixes: N images, H rows, W columns, C = 3 channels, K classes.
"""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dfkd_edge.runtime.faults import damage
from dfkd_edge.runtime.safe_files import reading

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dfkd_edge.runtime.session import Session

MAX_BYTES = 1 << 30  # Unpacked
# what zipfile, zlib and numpy raise on damaged archives: they share no base class
UNREADABLE = (
    *(OSError, ValueError, KeyError, EOFError, TypeError, SyntaxError, RuntimeError, MemoryError),
    *(OverflowError, RecursionError, zipfile.BadZipFile, zlib.error, struct.error),
    tokenize.TokenError,  # numpy's parser of array headers that old Pythons wrote
)
TOLERANCE: dict[str, dict[str, float]] = {
    "fp32": {"relative": 0.005, "agreement": 0.99},
    "fp16": {"relative": 0.03, "agreement": 0.97},
    "int8": {"relative": 0.15, "agreement": 0.9},
}
"""What export states in the manifest. `relative`: root mean square of the difference of logits
over their standard deviation. `agreement`: share of images with the same first class. INT8 kernels
of different machines round differently, one step in 255 a layer."""


@dataclass(frozen=True)
class GoldenResult:
    """How the logits of this machine compare with the host's."""

    num_images: int
    relative: float  # Root mean square difference over the standard deviation of the golden logits
    max_abs: float  # Largest difference of a logit
    agreement: float  # Share of images with the same first class
    num_nan: int  # Logits that are no number, or infinite
    tolerance: dict[str, float]
    passed: bool
    cause: str = ""  # The likely cause of a mismatch


def read_golden(path: Path, side_px: int, num_classes: int) -> dict[str, NDArray[Any]]:
    """Read golden.npz: `images` [N, S, S, C] and arrays of logits [N, K].

    Raises:
        Fault: it is damaged, or its shapes do not fit.
    """
    try:
        with reading(path) as stream:
            with zipfile.ZipFile(stream) as archive:
                size = sum(info.file_size for info in archive.infolist())
            if size > MAX_BYTES:  # a small file may unpack to fill the memory
                raise damage("file is larger than any of ours", path)
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as arrays:  # a pickle may run any code
                golden = {key: arrays[key] for key in arrays.files}
    except FileNotFoundError as error:
        raise damage("file is missing", path) from error
    except UNREADABLE as error:
        raise damage("golden images cannot be read", path) from error
    if not _fits(golden, side_px, num_classes):
        raise damage("golden images do not fit the contract", path)
    return golden


def _fits(golden: dict[str, Any], side_px: int, num_classes: int) -> bool:
    images, logits = golden.get("images"), [k for k in golden if k.endswith("_logits")]
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4:
        return False
    return (
        len(images) > 0
        and images.shape[1:] == (side_px, side_px, 3)
        and {"teacher_logits", "student_logits"} <= set(logits)
        and all(golden[key].shape == (len(images), num_classes) for key in logits)
        and all(golden[key].dtype.kind == "f" for key in logits)
        and golden.get("test_card", images[0]).shape == (side_px, side_px, 3)
    )


def compare(
    logits_NK: NDArray[Any], golden_NK: NDArray[Any], tolerance: dict[str, float]
) -> GoldenResult:
    """Measure how far logits are from the golden ones."""
    num_nan = int(np.count_nonzero(~np.isfinite(logits_NK)))
    seen_NK = np.nan_to_num(logits_NK.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    off_NK = seen_NK - golden_NK
    spread = max(float(np.std(golden_NK)), 1e-6)  # a constant answer has no deviation
    relative = float(np.sqrt(np.mean(off_NK**2))) / spread
    agreement = float(np.mean(seen_NK.argmax(axis=1) == golden_NK.argmax(axis=1)))
    is_near = relative <= tolerance["relative"] and agreement >= tolerance["agreement"]
    return GoldenResult(
        num_images=len(golden_NK),
        relative=relative,
        max_abs=float(np.abs(off_NK).max()),
        agreement=agreement,
        num_nan=num_nan,
        tolerance=tolerance,
        passed=num_nan == 0 and is_near,
    )


def check_golden(
    session: Session, golden: dict[str, NDArray[Any]], precision: str, tolerance: dict[str, float]
) -> GoldenResult:
    """Run the golden images and compare; on a mismatch, name the likely cause."""
    images_NHWC = golden["images"]
    # FP16 that is a builder flag has no logits of its own
    wanted_NK = golden.get(f"{precision}_logits", golden["student_logits"])
    logits_NK = session.run(images_NHWC).logits
    result = compare(logits_NK, wanted_NK, tolerance)
    if result.passed:
        return result
    # Feed the images wrongly on purpose: the fault that repairs the logits is the model's own.
    altered = {
        "the model takes BGR where RGB is fed": images_NHWC[..., ::-1],
        "the model takes mirrored pictures": images_NHWC[:, :, ::-1],
        "the model swaps rows and columns": images_NHWC.transpose(0, 2, 1, 3),
    }
    for cause, images in altered.items():
        altered_NK = session.run(np.ascontiguousarray(images)).logits
        if compare(altered_NK, wanted_NK, tolerance).passed:
            return replace(result, cause=cause)
    return replace(result, cause=_output_cause(logits_NK, wanted_NK, session.backend))


def _output_cause(logits_NK: NDArray[Any], wanted_NK: NDArray[Any], backend: str) -> str:
    if not np.isfinite(logits_NK).all():
        return "values overflow: a layer needs float32 here (--precision fp32 tells)"
    across_images = float(np.std(logits_NK, axis=0).mean())
    wanted_across = max(float(np.std(wanted_NK, axis=0).mean()), 1e-9)
    if across_images < 0.1 * wanted_across:  # as when a contract's 0 to 255 is fed as 0 to 1
        return "every picture looks the same to the model: wrong range, scaled twice or not at all"
    if backend == "tensorrt":
        return "the engine computes something else: build it with --precision fp32 to compare"
    return "the graph or its kernels compute something else than on the host"
