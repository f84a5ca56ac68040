"""What a file is that is named like a picture, or lies among them, and is read by none of ours.

Told by how it begins, so that nobody repairs what is whole.
"""

from __future__ import annotations

TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
IN_BOX = {
    b"ftypav": "AVIF",
    b"ftyphe": "HEIF",
    b"ftypm": "HEIF or a video",
    b"ftyp": "a video, or of its kind",
    b"jP  \r\n": "JPEG 2000",
    b"JXL ": "JPEG XL",
}
"""What stands after the size of a file's first box."""
MARKS = {
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\xff\x0a": "JPEG XL",
    b"8BPS": "Photoshop",
    b"%!PS": "PostScript",
    b"%PDF": "PDF",
    b"\0\0\1\0": "ICO",
    b"P7\n": "PAM",
    b"PF": "PFM in colour",
    b"DDS ": "DDS",
    b"qoif": "QOI",
    b"\x76\x2f\x31\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"SIMPLE": "FITS",
    b"\x1aE\xdf\xa3": "a video",
    b"PK\3\4": "ZIP, which has to be unpacked",
    b"\x1f\x8b": "gzip, which has to be unpacked",
    b"version https://git-lfs": "a pointer of Git LFS, which `git lfs pull` replaces",
}
PAGES = {
    b"<svg": "SVG",
    b"<?xml": "SVG or XML",
    b"<!doctype html": "HTML, as of a download that failed",
    b"<html": "HTML, as of a download that failed",
    b"{": "JSON, as of a download that failed",
}
"""Of text, which may begin with blanks and be in capitals."""


def name_other(head: bytes) -> str:
    """Name a format that is not read; empty for what may be a picture of ours."""
    page = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for marks, content in ((IN_BOX, head[4:]), (MARKS, head), (PAGES, page)):
        for mark, name in marks.items():
            if content.startswith(mark):
                return name
    return ""
