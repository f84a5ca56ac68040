"""What the first bytes of a picture say, in places where Pillow's versions differ or do not look.

The format by content whatever the name, levels of a PPM, header, EXIF and transparency of a PNG.
"""

from __future__ import annotations

import io
import re
import struct
from typing import BinaryIO

FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "PPM", "MPO", "TIFF", "WEBP")
"""Found by content, not name."""
READ_AS = "JPEG, PNG, WebP, BMP, GIF, TIFF, PPM and MPO"
STARTS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"RIFF": "WebP",
}
"""How files of these formats begin, but those whose first bytes are plain letters."""
OTHER_FORMATS = {
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\xff\x0a": "JPEG XL",
    b"8BPS": "Photoshop",
    b"%!PS": "PostScript",
    b"%PDF": "PDF",
    b"\0\0\1\0": "ICO",
    b"<svg": "SVG",
    b"<?xml": "SVG or XML",
    b"P7\n": "PAM",
    b"PF": "PFM in colour",
    b"DDS ": "DDS",
    b"qoif": "QOI",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"SIMPLE": "FITS",
    b"\x1aE\xdf\xa3": "a film",
    b"PK\3\4": "ZIP, which has to be unpacked",
    b"\x1f\x8b": "gzip, which has to be unpacked",
    b"version https://git-lfs": "a pointer of Git LFS, which `git lfs pull` replaces",
    b"<!DOCTYPE html": "HTML, as of a download that failed",
    b"<html": "HTML, as of a download that failed",
    b"{": "JSON, as of a download that failed",
}
"""How files begin that are named like pictures, or lie among them."""
IN_BOX = {b"jP  \r\n": "JPEG 2000", b"JXL ": "JPEG XL"}
"""What stands after the size of a file's first box."""
ISO_MEDIA = {b"av": "AVIF", b"he": "HEIF", b"mi": "HEIF", b"ms": "HEIF", b"cr": "CR3"}
"""Boxes of ISO by the first letters of their brand; the others are films."""
HEAD_BYTES = 1024
PPM_HEAD = re.compile(
    rb"P[56](?:\s+|#[^\n]*\n)+\d+(?:\s+|#[^\n]*\n)+\d+(?:\s+|#[^\n]*\n)+(\d{1,9})\s"
)
ORIENTATION = 274  # Tag of EXIF and TIFF
NUMBERS = {1: "B", 3: "H", 4: "L"}  # Types of EXIF: cameras write 3, some programs the others
GREY, COLOUR = 0, 2  # Kinds of PNG that name a transparent colour


def known_format(head: bytes) -> str:
    """Name the format that is read here and begins like this; empty for another."""
    name = next((name for mark, name in STARTS.items() if head.startswith(mark)), "")
    return name if name != "WebP" or head[8:12] == b"WEBP" else ""


def other_format(head: bytes) -> str:
    """Name the format that is not read and begins like this; empty for one that is, or unknown."""
    if head[4:8] == b"ftyp":
        return ISO_MEDIA.get(head[8:10], "a film, as of MP4")
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for mark, name in OTHER_FORMATS.items():
        if head.startswith(mark) or text.startswith(mark.lower()):
            return name
    return next((name for mark, name in IN_BOX.items() if head[4:].startswith(mark)), "")


def fault_of_ppm(head: bytes) -> str:
    """Say why some Pillow shows a PPM or PGM wrong: before 9.2 all levels go to 255."""
    if head[:2] not in (b"P5", b"P6") or not re.match(rb"P[56](\s|#)", head):
        return ""
    most = PPM_HEAD.match(head)
    if not most:
        return "its header is long, or damaged"
    if int(most.group(1)) not in (255, 65535):
        return f"its levels go to {int(most.group(1))}, not to 255 or 65535"
    return ""


def exif_orientation(exif: bytes) -> int:
    """Find the orientation in the first directory of EXIF; 1 where there is none."""
    start = 6 if exif.startswith(b"Exif\0\0") else 0
    order = {b"II": "<", b"MM": ">"}.get(exif[start : start + 2])
    try:
        if order is None:
            return 1
        (directory,) = struct.unpack_from(order + "L", exif, start + 4)
        (num,) = struct.unpack_from(order + "H", exif, start + directory)
        for index in range(num):
            place = start + directory + 2 + 12 * index
            tag, kind = struct.unpack_from(order + "HH", exif, place)
            if tag == ORIENTATION and kind in NUMBERS:
                (value,) = struct.unpack_from(order + NUMBERS[kind], exif, place + 8)
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:  # cut short
        pass
    return 1


def png_chunks(stream: BinaryIO) -> dict[bytes, bytes]:
    """Read header, EXIF and transparency of a PNG, wherever they lie; the stream stays in place.

    Pillow before 6 knows no EXIF of a PNG, and before it is decoded none that follows the pixels.
    """
    found: dict[bytes, bytes] = {}
    place = stream.tell()
    stream.seek(8)
    while True:
        header = stream.read(8)
        if len(header) < 8:
            break
        size, name = struct.unpack(">L4s", header)
        if name in (b"IHDR", b"eXIf", b"tRNS") and size <= 1 << 20:
            found[name] = stream.read(size)
            size = 0
        stream.seek(size + 4, io.SEEK_CUR)
    stream.seek(place)
    return found


def has_clear_colour(chunks: dict[bytes, bytes]) -> bool:
    """Whether a PNG names one colour as transparent; of others, which may hold the chunk, none."""
    header = chunks.get(b"IHDR", b"")
    return b"tRNS" in chunks and header[9:10] in (bytes([GREY]), bytes([COLOUR]))
