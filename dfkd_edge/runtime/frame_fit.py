"""Which way of making a frame fits it best: every hypothesis is built and compared.

Shape suffixes: N pixels, H rows, W columns, C = 3 channels (RGB), S the network's side.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dfkd_edge.runtime.frame_dump import Reading, Size
from dfkd_edge.runtime.frame_hypotheses import (
    LUMA,
    MAPPINGS,
    Mistake,
    ValueMap,
    View,
    halved_colour,
    luma_and_chroma,
    misread_video,
    quarters,
    views,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAME_LEVELS, SAME_VIDEO_LEVELS, EXPLAINED_VIDEO_LEVELS = 2.0, 3.0, 5.0
"""Pictures are the same up to this mean difference, in grey levels of 255. Where colours have half
the resolution, converters differ by more; a mistake explains what is left of it (ours)."""
SURE_LEVELS = 0.5  # What is so near needs no second guess
SIMPLER = 0.4  # Of hypotheses that fit alike, the one with fewer mistakes: levels for each
MAX_PIXELS, NUM_LOOKS = 5_000, 4  # Pixels that are compared, and how many get a thorough look
UNNAMED = 0.5  # A fitted scale is always near: it must be so much nearer than one with a name


class Picture(NamedTuple):
    """A picture that a pipeline may have been given."""

    name: str
    source_HWC: NDArray[np.uint8]
    right_SSC: NDArray[np.uint8]  # What the network must see of it


@dataclass(frozen=True)
class Wanted:
    """What must be handed to the network."""

    dtype: str
    layout: str  # NHWC or NCHW
    mapping: ValueMap
    side_px: int
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Fit:
    """A reading of a frame, and the way of making it that comes nearest."""

    reading: Reading
    picture: Picture
    off: float  # Mean difference, in grey levels of 255
    mistakes: tuple[Mistake, ...]
    colours: str = ""  # Of NV12: BT.601 or BT.709
    is_halved: bool = False  # Whether its colours have half the resolution, as those of video

    @property
    def is_near(self) -> bool:
        """Whether it explains the frame."""
        of_video = EXPLAINED_VIDEO_LEVELS if self.mistakes else SAME_VIDEO_LEVELS
        return self.off <= (of_video if self.is_halved else SAME_LEVELS)

    @property
    def rank(self) -> float:
        """How far off it is; of equals, the simplest is the nearest."""
        return self.off + SIMPLER * len(self.mistakes)


def best_fit(readings: list[Reading], wanted: Wanted) -> Fit:
    """Try every reading with every picture and every mix of mistakes, likely ones first."""
    for fit in _right(readings, wanted):
        return fit
    fits: list[Fit] = []
    by_size = {one.size: [r for r in readings if r.size == one.size] for one in readings}
    for is_halved in (False, True):
        if is_halved:  # a decoder leaves one colour to four pixels: no mistake, and seldom seen
            halved = (p._replace(source_HWC=halved_colour(p.source_HWC)) for p in wanted.pictures)
            wanted = replace(wanted, pictures=tuple(halved))
        for size, of_size in by_size.items():
            found = _fits(of_size, size, wanted, not is_halved)
            fits.append(replace(min(found, key=lambda fit: fit.rank), is_halved=is_halved))
            if fits[-1].off <= SURE_LEVELS:
                return fits[-1]
    return min(fits, key=lambda fit: (not fit.is_near, fit.rank))


def _right(readings: list[Reading], wanted: Wanted) -> Iterator[Fit]:
    """Find a frame as it must be, which is what most of them are."""
    for reading, picture in itertools.product(readings, wanted.pictures):
        if reading.format.layout != "NV12" and not tuple(_of_reading(reading, wanted)):
            level_SSC = (reading.values - wanted.mapping.shift_C) / wanted.mapping.gain_C
            fit = Fit(reading, picture, float(np.abs(level_SSC - picture.right_SSC).mean()), ())
            if fit.is_near:
                yield fit


def _fits(readings: list[Reading], size: Size, wanted: Wanted, is_exact: bool) -> Iterator[Fit]:
    """Judge readings of one size: a quick look at all of them, a thorough one at a few."""
    looks = []
    mappings = [(mapping, _of_values(mapping, wanted.mapping)) for mapping in MAPPINGS]
    for picture in wanted.pictures:
        right = picture.right_SSC if is_exact and set(size) == {wanted.side_px} else None
        seen = list(views(picture.source_HWC, right, size.height, size.width))
        for reading in readings:
            if reading.format.layout == "NV12":
                best = min(_as_video(reading, seen), key=lambda guess: guess.rank)
                yield Fit(reading, picture, best.off, best.mistakes, best.colours)
                continue
            value_NC = _sampled(reading.values)
            for view in seen:
                level_NC = _sampled(view.levels)
                look = (reading, picture, value_NC, View(level_NC, view.mistakes))
                looks.append((_undone(value_NC, level_NC), look))
    for _, (reading, picture, value_NC, view) in sorted(looks, key=lambda look: look[0])[
        :NUM_LOOKS
    ]:
        best = min(_as_values(value_NC, view, mappings, wanted.mapping), key=lambda g: g.rank)
        mistakes = tuple(_of_reading(reading, wanted)) + best.mistakes
        yield Fit(reading, picture, best.off, mistakes)


def _sampled(image_HWC: NDArray[Any]) -> NDArray[np.float64]:
    pixel_NC = image_HWC.reshape(-1, 3)
    return pixel_NC[:: max(1, len(pixel_NC) // MAX_PIXELS)].astype(np.float64)


def _of_reading(reading: Reading, wanted: Wanted) -> Iterator[Mistake]:
    kind = reading.format
    if kind.layout == "NV12":
        return  # it is on its way: the runtime makes it a tensor of the right size
    if reading.size != Size(wanted.side_px, wanted.side_px):
        side = wanted.side_px
        yield Mistake(f"size is {reading.size}, not {side} x {side}", ("size",))
    if kind.channels == 4:
        yield Mistake("four channels (RGBA), not three", ("layout",))
    if reading.is_raw and kind.dtype != wanted.dtype:
        yield Mistake(f"values are {kind.dtype}, not {wanted.dtype}", ("dtype",))
    if kind.layout != wanted.layout:
        place = {"NCHW": "first (NCHW)", "NHWC": "last (NHWC)"}
        what = f"channels come {place[kind.layout]}, not {place[wanted.layout]}"
        yield Mistake(what, ("layout",))


class _Guess(NamedTuple):
    """One way that a frame may have been made."""

    off: float  # Grey levels
    mistakes: tuple[Mistake, ...]
    colours: str = ""
    handicap: float = 0.0

    @property
    def rank(self) -> float:
        """How far off it is; of equals, the simplest is the nearest."""
        return self.off + SIMPLER * len(self.mistakes) + self.handicap


_FULL = Mistake("NV12 is of full range, where video has 16 to 235", ("video",))
_NV21 = Mistake("U and V are swapped (NV21, not NV12)", ("video",))
_BGR = Mistake("channels are BGR, not RGB", ("channels",))
_FORWARD, _BACKWARD = slice(None), slice(None, None, -1)


def _as_video(reading: Reading, seen: list[View]) -> Iterator[_Guess]:
    """Compare luma and chroma as they are: 4:2:0 cannot be undone."""
    height = reading.size.height
    luma_HW = reading.values[:height].astype(np.float64)
    chroma_HW2 = reading.values[height:].reshape(height // 2, -1, 2).astype(np.float64)
    for view, name in itertools.product(seen, LUMA):
        parts_HWC = view.levels / 255 @ luma_and_chroma(name).T
        colour_HW2 = quarters(parts_HWC[..., 1:])
        for is_full, is_swapped in itertools.product((False, True), repeat=2):
            gain, low, reach = (255, 0, 255) if is_full else (219, 16, 224)
            order = _BACKWARD if is_swapped else _FORWARD
            luma_off = np.abs(low + gain * parts_HWC[..., 0] - luma_HW).mean()
            chroma_off = np.abs(128 + reach * colour_HW2[..., order] - chroma_HW2).mean()
            mistakes = view.mistakes + (_FULL,) * is_full + (_NV21,) * is_swapped
            yield _Guess(float(2 * luma_off + chroma_off) / 3, mistakes, name)  # as many bytes


def _as_values(
    value_NC: NDArray[Any],
    view: View,
    mappings: list[tuple[ValueMap, tuple[Mistake, ...]]],
    wanted: ValueMap,
) -> Iterator[_Guess]:
    """Try every misreading of colours with every mapping to values that has a name, or with any."""
    for misread, is_bgr in itertools.product(misread_video(view.levels), (False, True)):
        level_NC = misread.levels[:, _BACKWARD if is_bgr else _FORWARD]
        mistakes = view.mistakes + (_BGR,) * is_bgr + misread.mistakes
        for mapping, of_values in mappings:
            made_NC = level_NC * mapping.gain_C + mapping.shift_C
            off = (np.abs(made_NC - value_NC) / mapping.gain_C).mean()
            yield _Guess(float(off), mistakes + of_values)
        if not misread.mistakes:  # a range that was misread is a scale, too
            off, mapping = _fitted(value_NC, level_NC)
            yield _Guess(off, mistakes + _of_values(mapping, wanted), handicap=UNNAMED)


def _undone(value_NC: NDArray[Any], level_NC: NDArray[Any]) -> float:
    """How far levels are from the best that any mix of the three values and a shift gives."""
    spread = max(float(np.abs(value_NC).max()), 1e-30)  # floats of any size stay comparable
    design_NC = np.concatenate([value_NC / spread, np.ones((len(value_NC), 1))], axis=1)
    mix_CC = np.linalg.lstsq(design_NC, level_NC, rcond=None)[0]
    return float(np.abs(design_NC @ mix_CC - level_NC).mean())


def _fitted(value_NC: NDArray[Any], level_NC: NDArray[Any]) -> tuple[float, ValueMap]:
    """Fit gain and shift of each channel, for scales that nobody has named."""
    mean_C, middle_C = value_NC.mean(0), level_NC.mean(0)
    around_NC = level_NC - middle_C
    power_C = np.maximum((around_NC**2).sum(0), 1e-9)
    gain_C = (around_NC * (value_NC - mean_C)).sum(0) / power_C
    if not gain_C.all():  # the same value everywhere says nothing
        return float("inf"), MAPPINGS[0]
    shift_C = mean_C - gain_C * middle_C
    off = (np.abs(level_NC * gain_C + shift_C - value_NC) / np.abs(gain_C)).mean()
    told_C = np.where(np.abs(shift_C) < np.abs(gain_C) / 1000, 0, shift_C)  # rounding is no shift
    gains, shifts = (", ".join(f"{v:.4g}" for v in found) for found in (gain_C, told_C))
    return float(off), ValueMap(f"are levels times {gains}, plus {shifts}", gain_C, shift_C)


def _of_values(mapping: ValueMap, wanted: ValueMap) -> tuple[Mistake, ...]:
    """Say how values differ from those that are wanted, if they do."""
    gain_C, shift_C = wanted.gain_C, wanted.shift_C
    is_scaled = not np.allclose(mapping.gain_C, gain_C, rtol=0.03)
    close = 3 * min(np.abs(mapping.gain_C).min(), gain_C.min())  # Grey levels, in values
    is_shifted = not np.allclose(mapping.shift_C, shift_C, rtol=0.01, atol=close)
    kinds = ("scale",) * is_scaled + ("offsets",) * is_shifted
    words = wanted.words.split(" ", 1)[1]  # without the verb
    return (Mistake(f"values {mapping.words}, not {words}", kinds),) if kinds else ()
