"""Judges what a pipeline hands to the network: which mistake was made, and which key mends it.

Shape suffixes: H rows, W columns, C = 3 channels (RGB), S the network's side.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dfkd_edge.runtime.bundle_files import RUNTIMES, Bundle, safe_path
from dfkd_edge.runtime.documents import read_json, read_raw
from dfkd_edge.runtime.faults import ProofFault, UsageFault, damage
from dfkd_edge.runtime.frame_dump import Size, read_dump, readings_of_array
from dfkd_edge.runtime.frame_fit import SAME_LEVELS, Fit, Picture, Wanted, best_fit
from dfkd_edge.runtime.frame_hypotheses import LEVELS, WANTED, Mistake, ValueMap
from dfkd_edge.runtime.preprocess import test_card

if TYPE_CHECKING:
    from numpy.typing import NDArray

CARD, ANSWER = "test_card.png", "golden/answer.json"
FAR_LEVELS = 15.0  # From here on, the nearest guess is none
NAMES = {"fp32": ("fp32",), "fp16": ("fp16",), "int8": ("int8", "fp32")}
"""What engines of a precision are called: nvinfer calls one `fp32` that a Q/DQ graph typed, and
without INT8 TensorRT builds none of such a graph."""


@dataclass(frozen=True)
class FrameRequest:
    """What to judge."""

    path: Path  # The dump
    runtime: str = ""  # Who made it; empty for a program of the user's own
    format_name: str = ""  # A key of FORMATS; empty tells it by the number of bytes
    size: Size | None = None  # None tells it by the number of bytes


@dataclass(frozen=True)
class Golden:
    """What a runtime's folder says of its input."""

    wanted: Wanted
    mends: Mapping[str, str] = field(default_factory=dict)  # Kind of mistake -> what mends it
    fallback: str = ""  # What the runtime built in another precision; empty where nothing
    others: str = ""  # Runtimes that the bundle knows, where none was named


@dataclass(frozen=True)
class FrameResult:
    """What was found out about a frame."""

    request: FrameRequest
    fit: Fit
    golden: Golden

    @property
    def mistakes(self) -> tuple[Mistake, ...]:
        """What went wrong; empty for a frame as the network must get it."""
        found = self.fit.mistakes if self.fit.is_near else (self._unexplained(),)
        fallback = self.golden.fallback
        return found + ((Mistake(fallback, ("precision",)),) if fallback else ())

    def _unexplained(self) -> Mistake:
        fit, values = self.fit, self.fit.reading.values
        if values.dtype.kind in "ui" and values.max() <= 1:
            what = "no value is above 1: it is black, or was divided by 255 in whole numbers"
            return Mistake(what, ("scale",))
        if values.max() == values.min():
            return Mistake(f"every value is {values.flat[0]:g}", ())
        named = "; ".join(mistake.what for mistake in fit.mistakes)
        nearest = f" (nearest, at {fit.off:.0f}: {named})" if named and fit.off < FAR_LEVELS else ""
        known = " or ".join(picture.name for picture in self.golden.wanted.pictures)
        why = f"for a reason not known here{nearest}"
        return Mistake(f"differs from {known} by {fit.off:.0f} grey levels {why}", ())

    @property
    def _contract(self) -> str:
        runtime = self.request.runtime
        if runtime:
            return f"{RUNTIMES}/{runtime}/README.md says which picture to dump, and how"
        return f"preprocess.json is the contract, and {CARD} the picture to dump"

    @property
    def mends(self) -> list[str]:
        """What to set in the runtime, in the order of the mistakes."""
        kinds = dict.fromkeys(kind for mistake in self.mistakes for kind in mistake.kinds)
        return [self.golden.mends[kind] for kind in kinds if kind in self.golden.mends]

    @property
    def faults(self) -> list[ProofFault]:
        """The line for a frame that is wrong; nothing for one that is right."""
        if not self.mistakes:
            return []
        what = f"frame is not what the network must get: {'; '.join(m.what for m in self.mistakes)}"
        hint = f"it takes {'; '.join(self.mends)}" if self.mends else self._contract
        if self.golden.others:
            hint += f"; what a runtime feeds is judged with --runtime NAME ({self.golden.others})"
        return [ProofFault(what, str(self.request.path), hint)]

    def lines(self) -> list[str]:
        """Say how the frame was read, what it was made of, and what the picture cannot show."""
        fit = self.fit
        shown = [f"read as {fit.reading}{fit.colours and f', {fit.colours}'}"]
        if fit.is_near:
            shown.append(f"made of {fit.picture.name}, {fit.off:.2f} grey levels of 255 off")
        if fit.is_halved and fit.is_near:
            shown.append("note: colours have half the resolution, as those of video have")
        blind = _not_shown(fit.picture)
        if fit.is_near and blind:
            shown.append(f"note: {fit.picture.name} cannot show {blind}: dump {CARD} too")
        return shown if self.mistakes else [*shown, "frame as the network must get it"]

    def to_json(self) -> dict[str, object]:
        """Return what `--json` prints."""
        return {
            "frame": str(self.request.path),
            "runtime": self.request.runtime,
            "read_as": str(self.fit.reading),
            "picture": self.fit.picture.name if self.fit.is_near else "",
            "grey_levels_off": round(self.fit.off, 3),
            "mistakes": [{"what": m.what, "kinds": list(m.kinds)} for m in self.mistakes],
            "mends": self.mends,
            "passed": not self.mistakes,
        }


def judge_frame(bundle: Bundle, request: FrameRequest) -> FrameResult:
    """Find out how a frame was made.

    Raises:
        UsageFault: the dump cannot be read or fits nothing; the bundle is not for this runtime.
        Fault: the bundle is damaged.
    """
    golden = _of_runtime(bundle, request.runtime) if request.runtime else _of_contract(bundle)
    readings = read_dump(request.path, bundle.side_px, request.format_name, request.size)
    finite = [one for one in readings if np.isfinite(one.values).all()]
    result = FrameResult(request, best_fit(finite, golden.wanted), golden) if finite else None
    # any four bytes are a float, so NaN counts where nothing else explains a tensor of this size
    lost = [one for one in readings if one not in finite and one.is_whole(bundle.side_px)]
    if not result or (lost and not result.fit.is_near):
        what = "holds values that are no numbers, or infinite"
        raise UsageFault(what, f"--frame {request.path}")
    return result


def name_mistakes(seen: NDArray[Any], card: Picture) -> str:
    """Compare what anything makes of the test card with what training would have seen.

    Returns:
        The likely mistakes; empty where both are the same.
    """
    wanted = Wanted("uint8", "NHWC", LEVELS, len(card.right_SSC), (card,))
    fit = best_fit(readings_of_array(seen, CARD), wanted)
    result = FrameResult(FrameRequest(Path(CARD)), fit, Golden(wanted))
    return "; ".join(mistake.what for mistake in result.mistakes)


def card_of(bundle: Bundle) -> tuple[Picture, ...]:
    """Return the test card; nothing where the bundle has none."""
    right_SSC = bundle.golden().get("test_card")
    return () if right_SSC is None else (Picture(CARD, test_card(bundle.side_px), right_SSC),)


def _of_contract(bundle: Bundle) -> Golden:
    card = card_of(bundle)
    if not card:
        raise damage("golden.npz holds no test card", bundle.folder)
    wanted = Wanted(bundle.input_dtype, "NHWC", LEVELS, bundle.side_px, card)
    return Golden(wanted, others=_runtimes_of(bundle))


def _of_runtime(bundle: Bundle, runtime: str) -> Golden:
    files = bundle.manifest.files
    name = f"{RUNTIMES}/{runtime}/golden/answer.json"
    if name not in files:
        held = _runtimes_of(bundle)
        hint = f"it has {held}" if held else "dfkd-edge runtimes add puts it there"
        raise UsageFault(f"bundle has no runtime '{runtime}'", "--runtime", hint)
    path = safe_path(bundle.folder, name)
    document = read_json(path)
    try:
        fed: Any = document["input"]
        dtype, layout, mapping = str(fed["dtype"]), str(fed["layout"]), WANTED[fed["values"]]
        given_SSC = _undo(read_raw(path.with_name(str(fed["file"]))), fed, mapping, bundle.side_px)
        mends = {kind: str(mend) for kind, mend in document.get("mends", {}).items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damage("golden input is not whole", path) from error
    pictures = (Picture("golden/picture.png", given_SSC, given_SSC), *card_of(bundle))
    wanted = Wanted(dtype, layout, mapping, bundle.side_px, pictures)
    return Golden(wanted, mends, _fallback(bundle, path.parents[1], str(document.get("precision"))))


def _runtimes_of(bundle: Bundle) -> str:
    names = [re.fullmatch(rf"{RUNTIMES}/([^/]+)/{ANSWER}", name) for name in bundle.manifest.files]
    return ", ".join(found[1] for found in names if found)


def _undo(raw: bytes, fed: Mapping[str, Any], mapping: ValueMap, side_px: int) -> NDArray[np.uint8]:
    """Turn the golden tensor back into its picture [S, S, C]."""
    value = np.frombuffer(raw, fed["dtype"], side_px * side_px * 3)
    planes = fed["layout"] == "NCHW"
    value_SSC = (
        value.reshape(3, side_px, side_px).transpose(1, 2, 0)
        if planes
        else value.reshape(side_px, side_px, 3)
    )
    level_SSC = (value_SSC - mapping.shift_C) / mapping.gain_C
    return np.clip(np.round(level_SSC), 0, 255).astype(np.uint8)


def _fallback(bundle: Bundle, folder: Path, precision: str) -> str:
    """Say that a runtime built in another precision than it was told; empty where it did not.

    nvinfer only logs it, and names the engine after its graph and what it built; one of another
    graph is of an earlier bundle, and is not loaded.
    """
    within = folder.relative_to(bundle.folder).as_posix()
    graphs = [
        bundle.folder / name
        for name in bundle.manifest.files
        if name.startswith(f"{within}/") and name.endswith(".onnx")
    ]
    engines = {
        p: sorted(e for g in graphs for e in g.parent.glob(f"{g.name}_*_{p}.engine")) for p in NAMES
    }
    built = [path for paths in engines.values() for path in paths]
    if not built or any(engines[name] for name in NAMES.get(precision, NAMES)):
        return ""
    return f"{built[0].name} was built, where the model is {precision}"


def _not_shown(picture: Picture) -> str:
    """Name the mistakes that a picture would look alike with."""
    right_SSC = picture.right_SSC.astype(np.float64)
    is_grey = np.abs(right_SSC - right_SSC[..., ::-1]).mean() <= SAME_LEVELS
    height, width = picture.source_HWC.shape[:2]
    unseen = ["BGR for RGB"] * bool(is_grey) + ["letterboxes and crops"] * (height == width)
    return " or ".join(unseen)
