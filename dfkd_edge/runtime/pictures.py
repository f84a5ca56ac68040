"""A picture file as a person sees it: turned upright, at its depth, in colours, over white.

What Pillow makes of a file depends on its version. Whatever differs between that of JetPack 4.6
(5.1) and today's, or clips, is done here: orientation, deep greyscale, CMYK, transparent colours.

Shape suffixes: H rows, W columns, C = 3 channels (RGB).
"""

from __future__ import annotations

import inspect
import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from dfkd_edge.runtime.faults import LackingFault, PictureFault
from dfkd_edge.runtime.limits import free_bytes
from dfkd_edge.runtime.picture_heads import (
    FORMATS,
    HEAD_BYTES,
    ORIENTATION,
    READ_AS,
    exif_orientation,
    fault_of_ppm,
    has_clear_colour,
    known_format,
    other_format,
    png_chunks,
)
from dfkd_edge.runtime.safe_files import NotPlainError, reading

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAVE_ANEW = "save it as JPEG or PNG"
MENDED = "remove or repair it"
DAMAGED = (
    *(OSError, ValueError, SyntaxError, EOFError, MemoryError, struct.error, zlib.error),
    *(TypeError, KeyError, IndexError, AttributeError, OverflowError, RuntimeError, RecursionError),
)
MAX_PICTURE_BYTES = 1 << 30  # 134 megapixels, 53 of what is transparent, deep or turned
BYTES_TO_CONVERT, BYTES_TO_COMPOSE = 8, 20
"""A pixel: Pillow keeps 4 of RGB, twice; of what is transparent five pictures at a time."""
PLAIN_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr")
DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
SRGB_OF_XYZ = (
    (3.1338561, -0.9787684, 0.0719453),
    (-1.6168667, 1.9161415, -0.2289914),
    (-0.4906146, 0.0334540, 1.4052427),
)
"""From what the eye sees under paper's white (D50) to the light of a screen (D65), by columns."""
WHITE_XYZ = (0.9642, 1.0, 0.8249)  # D50, against which Lab is written
BITS, COMPRESSION, PHOTOMETRIC, PLANES, PALETTE, SIGN = 258, 259, 262, 284, 320, 339  # Of TIFF
WHITE_IS_ZERO, UNCOMPRESSED, APART, SIGNED = 0, 1, 2, 2
TURNED = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: image[::-1].transpose(1, 0, 2),
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: image[:, ::-1].transpose(1, 0, 2),
}
"""What makes an array [H, W, C] upright, by the orientation of EXIF."""


class _RefusedError(Exception):
    """A picture, perhaps whole, that is not shown as a person sees it."""


class _TooLargeError(Exception):
    """A picture beyond the memory."""


def pillow() -> Any:
    """Import Pillow's `Image`.

    Raises:
        LackingFault: it is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        hint = "apt-get install python3-pil, or pip install pillow"
        raise LackingFault("pictures need Pillow", hint=hint) from error
    return Image


def open_upright(path: Path) -> Any:
    """Read a picture as a PIL picture in RGB, as a person sees it; of several the first.

    Raises:
        LackingFault: Pillow is not installed.
        PictureFault: it cannot be read; the line says why.
    """
    image_module = pillow()
    try:
        with reading(path) as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it warns of is refused here, or harmless
            with _opened(image_module, stream) as picture:
                chunks = png_chunks(stream) if picture.format == "PNG" else {}
                _refuse_too_large(picture, chunks)
                return _upright(picture, chunks)
    except NotPlainError as error:
        raise PictureFault("picture is not a plain file", str(path), MENDED) from error
    except _RefusedError as error:
        raise PictureFault(f"picture cannot be read: {error}", str(path), SAVE_ANEW) from error
    except (_TooLargeError, image_module.DecompressionBombError) as error:
        size = str(error).partition(", could be")[0]
        what = f"picture is too large: {size[:1].lower()}{size[1:]}"
        raise PictureFault(what, str(path), "make it smaller") from error
    # what Pillow's decoders raise on damaged files: they share no base class
    except DAMAGED as error:
        what = f"picture cannot be read: {_reason(error)}"
        raise PictureFault(what, str(path), MENDED) from error


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _opened(image_module: Any, stream: BinaryIO) -> Any:
    """Open a picture of a known format, whatever its name; others run programs or fill memory.

    A PostScript file named .jpg would start Ghostscript.
    """
    head = stream.read(HEAD_BYTES)
    if not head:
        raise ValueError("file is empty")
    stream.seek(0)
    fault = fault_of_ppm(head)
    if fault:
        raise _RefusedError(fault)
    if other_format(head):
        raise _RefusedError(f"its format is {other_format(head)}")
    try:
        if "formats" in inspect.signature(image_module.open).parameters:  # since Pillow 8
            # MPO has no opener: JPEG's makes one of a file that holds several
            return image_module.open(stream, formats=[f for f in FORMATS if f != "MPO"])
        picture = image_module.open(stream)  # reads the header alone
    except OSError as error:
        if "cannot identify" in str(error):  # its text names the stream
            if known_format(head):
                what = f"a {known_format(head)} of a kind that Pillow does not read, or cut short"
                raise _RefusedError(what) from error
            raise ValueError(f"none of {READ_AS}, or cut short") from error
        raise
    if picture.format not in FORMATS:
        raise _RefusedError(f"its format is {picture.format}")
    return picture


def _refuse_too_large(picture: Any, chunks: dict[bytes, bytes]) -> None:
    """Refuse a picture that goes beyond the memory; nothing is decoded yet."""
    width, height = picture.size
    is_light = picture.mode in PLAIN_MODES and not _is_transparent(picture, chunks)
    is_light = is_light and _orientation(picture, chunks) == 1
    needed = width * height * (BYTES_TO_CONVERT if is_light else BYTES_TO_COMPOSE)
    free = free_bytes()
    most = MAX_PICTURE_BYTES if free is None else min(MAX_PICTURE_BYTES, free // 2)
    if needed > most:
        size = f"{width} x {height} pixels take {needed >> 20:,} MiB"
        raise _TooLargeError(f"{size}, {most >> 20:,} MiB are given to a picture here")


def _upright(picture: Any, chunks: dict[bytes, bytes]) -> Any:
    turned = TURNED.get(_orientation(picture, chunks))
    if picture.format == "TIFF":
        _mend_tiff(picture)
    # the first picture of a GIF may cover a part; Pillow fills the rest with a colour of its own
    box = tuple(picture.tile[0][1]) if picture.format == "GIF" and picture.tile else None
    rgb = _in_colour(picture, chunks)
    if box and box != (0, 0, *picture.size):
        part, rgb = rgb.crop(box), pillow().new("RGB", rgb.size, "white")
        rgb.paste(part, box[:2])
    if turned is None:
        return rgb
    return pillow().fromarray(np.ascontiguousarray(turned(np.asarray(rgb))))


def _mend_tiff(picture: Any) -> None:
    """Refuse what Pillow shows wrong without a word, and read palettes of 8 bits as viewers do."""
    tags = picture.tag_v2
    if SIGNED in _numbers(tags.get(SIGN)):
        raise _RefusedError("its numbers have a sign, and no known range")
    is_apart = APART in _numbers(tags.get(PLANES)) and max(_numbers(tags.get(BITS)) or [1]) > 8
    if is_apart and UNCOMPRESSED in _numbers(tags.get(COMPRESSION)):
        raise _RefusedError("colours of more than 8 bits lie apart in it")
    colours = _numbers(tags.get(PALETTE))
    if picture.mode == "P" and colours and max(colours) < 256:  # TIFF has 16 bits there
        picture.putpalette(bytes(colours), "RGB;L")


def _numbers(value: Any) -> tuple[int, ...]:
    """Give what a tag of a TIFF holds: Pillow keeps one number alone."""
    return value if isinstance(value, tuple) else () if value is None else (value,)


def _is_transparent(picture: Any, chunks: dict[bytes, bytes]) -> bool:
    return picture.mode in ("LA", "PA", "RGBA", "RGBa") or bool(
        "transparency" in picture.info or has_clear_colour(chunks)
    )


def _in_colour(picture: Any, chunks: dict[bytes, bytes]) -> Any:
    """Convert a PIL picture to RGB; what is transparent shows white, not what lies below it."""
    image_module, mode = pillow(), picture.mode
    if mode == "CMYK":
        return image_module.fromarray(_rgb_of_cmyk(np.asarray(picture)))
    if mode == "LAB":
        return image_module.fromarray(_rgb_of_lab(np.asarray(picture)))
    if mode not in (*PLAIN_MODES, *DEEP_MODES):
        raise _RefusedError(f"its colour model is {mode}")
    if has_clear_colour(chunks):
        return image_module.fromarray(_with_key(picture, chunks))
    if mode in DEEP_MODES:
        return image_module.fromarray(_levels(picture)).convert("RGB")
    if not _is_transparent(picture, chunks):
        return picture.convert("RGB")
    rgba = picture.convert("RGBA")
    white = image_module.new("RGBA", rgba.size, "white")
    return image_module.alpha_composite(white, rgba).convert("RGB")


def _rgb_of_cmyk(ink_HW4: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Multiply the light that ink and black leave; Pillow before 6 subtracts both."""
    light_HW4 = 255 - ink_HW4.astype(np.uint16)
    product_HWC = light_HW4[..., :3] * light_HW4[..., 3:] + 128
    rgb: NDArray[np.uint8] = (((product_HWC >> 8) + product_HWC) >> 8).astype(np.uint8)
    return rgb


def _rgb_of_lab(lab_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Show Lab on a screen; Pillow converts it with a library of profiles that devices lack."""
    light = np.arange(1 << 16) / 65535
    curve = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    level_of_light = np.rint(curve * 255).astype(np.uint8)
    rgb_HWC = np.empty_like(lab_HWC)
    for row, lab_WC in enumerate(lab_HWC):  # floats of all rows at once would fill the memory
        height_W = (lab_WC[:, 0] * (100 / 255) + 16) / 116
        red_W, blue_W = lab_WC[:, 1:].view(np.int8).T  # Pillow gives them out with a sign
        root_WC = np.stack([height_W + red_W / 500, height_W, height_W - blue_W / 200], axis=-1)
        dark_WC = (root_WC - 16 / 116) * (108 / 841)
        xyz_WC = np.where(root_WC > 6 / 29, root_WC**3, dark_WC) * WHITE_XYZ
        light_WC = np.clip(xyz_WC @ np.array(SRGB_OF_XYZ), 0, 1)
        rgb_HWC[row] = level_of_light[np.rint(light_WC * 65535).astype(np.int64)]
    return rgb_HWC


def _with_key(picture: Any, chunks: dict[bytes, bytes]) -> NDArray[np.uint8]:
    """Show white where a PNG names one colour as transparent, at the depth that the file has."""
    depth = chunks[b"IHDR"][8]
    raw = chunks[b"tRNS"]
    key = np.array(struct.unpack(f">{len(raw) // 2}H", raw[: len(raw) // 2 * 2]))
    if picture.mode in DEEP_MODES:
        is_clear_HW1 = (np.asarray(picture) == key[0])[..., None]
        rgb = np.asarray(pillow().fromarray(_levels(picture)).convert("RGB")).copy()
    else:
        rgb = np.array(picture.convert("RGB"))  # Pillow keeps the high byte of two
        key = key >> 8 if depth == 16 else key * (255 // ((1 << depth) - 1))
        is_clear_HW1 = (rgb == key).all(axis=-1, keepdims=True)
    return np.where(is_clear_HW1, np.uint8(255), rgb)


def _levels(picture: Any) -> NDArray[np.uint8]:
    """Scale deep greyscale to 8 bits by the range that its format states; it is never clipped."""
    value_HW = np.array(picture)
    low, high = value_HW.min(), value_HW.max()
    span = f"levels from {low:g} to {high:g}"
    if picture.mode == "F":
        is_over = 1 < high < 2  # 0 to 1 and a little more, or 0 to 255 and nearly black
        if is_over or not (low >= 0 and high <= 255):  # NaN, too
            raise _RefusedError(f"floats of no known range, {span}")
        level_HW = np.rint(value_HW * (255 if high <= 1 else 1))
    else:
        bits = 16
        if picture.format == "TIFF":
            (bits, *_) = picture.tag_v2.get(BITS, (1,))
        if not (8 <= bits <= 16 and low >= 0 and high < 1 << bits):
            what = f"{bits}-bit numbers of no known range, {span}"
            raise _RefusedError(what)
        level_HW = value_HW >> (bits - 8)  # as Pillow reads colours of 16 bits
    if picture.format == "TIFF" and picture.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        level_HW = 255 - level_HW
    levels: NDArray[np.uint8] = level_HW.astype(np.uint8)
    return levels


def _orientation(picture: Any, chunks: dict[bytes, bytes]) -> int:
    """Read how the camera was held, 1 to 8 as EXIF has it; 1 is upright."""
    if picture.format == "TIFF":
        tag = 1 if _pillow_turns_tiff() else picture.tag_v2.get(ORIENTATION, 1)
        return tag if isinstance(tag, int) else 1
    return exif_orientation(chunks.get(b"eXIf") or picture.info.get("exif") or b"")


_tiff_is_turned: list[bool] = []  # Once it has been tried


def _pillow_turns_tiff() -> bool:
    """Whether this Pillow turns a TIFF while it decodes, tried on one of two pixels."""
    if not _tiff_is_turned:
        head = struct.pack("<2sHLH", b"II", 42, 8, 9)
        tags = ((256, 2), (257, 1), (258, 8), (259, 1), (262, 1), (273, 122), (274, 2))
        entries = b"".join(struct.pack("<HHLL", tag, 3, 1, value) for tag, value in tags)
        entries += struct.pack("<HHLL", 278, 3, 1, 1) + struct.pack("<HHLL", 279, 3, 1, 2)
        with pillow().open(io.BytesIO(head + entries + b"\0\0\0\0" + b"\1\2")) as picture:
            _tiff_is_turned.append(picture.convert("L").getpixel((0, 0)) == 2)
    return _tiff_is_turned[0]
