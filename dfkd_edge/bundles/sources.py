"""What `predict` is given: pictures, folders, videos, cameras, streams and standard input."""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

from dfkd_edge.errors import UsageError, faults_as_errors
from dfkd_edge.files import scratch_folder
from dfkd_edge.runtime.picture_walk import walk

Kind = Literal["picture", "video", "camera", "stream", "input"]
LIVE: tuple[Kind, ...] = ("camera", "stream")
"""They end when they like, and a frame that is not taken in time is gone."""
STDIN = "-"
VIDEO_SUFFIXES = frozenset(
    {
        *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".flv", ".mpg", ".mpeg"),
        *(".ts", ".mts", ".m2ts", ".3gp", ".ogv", ".h264", ".h265", ".hevc", ".mjpeg", ".mjpg"),
    }
)
PICTURE_HEADS = (*(b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"P5\n", b"P6\n", b"II*\0", b"MM\0*"),)
"""How pictures begin on standard input, if not with a control character; all else is paths."""
HEAD_BYTES = 12  # They tell a BMP or WebP from a path that begins with BM or RIFF
MAX_PICTURE_BYTES = 256 << 20  # On standard input


class Source(NamedTuple):
    """One thing to classify, or many frames of it."""

    kind: Kind
    path: str  # As it is opened
    name: str  # As it is shown: a URL without its password

    @property
    def is_video(self) -> bool:
        """Whether it has frames."""
        return self.kind in ("video", *LIVE)


def find_sources(arguments: Sequence[str]) -> tuple[list[Source], list[str]]:
    """Expand folders, and name what is not there.

    Raises:
        UsageError: nothing is left.
    """
    sources: list[Source] = []
    skipped: list[str] = []
    for argument in arguments:
        found, unread = _expanded(argument)
        sources += found
        skipped += unread
    if not sources:
        raise UsageError("no picture to classify", where=skipped[0] if skipped else "")
    return sources, skipped


def _expanded(argument: str) -> tuple[list[Source], list[str]]:
    if argument == STDIN:
        return [Source("input", argument, argument)], []
    if is_url(argument):
        return [Source("stream", argument, without_secrets(argument))], []
    is_file_url = argument.lower().startswith("file://")
    path = Path(url2pathname(urlsplit(argument).path) if is_file_url else argument)
    if not _is_there(path):
        if argument.isdecimal():
            return [Source("camera", argument, f"camera {argument}")], []
        if re.fullmatch(r"/dev/video\d+", argument):  # one that is not plugged in
            return [Source("camera", argument, argument)], []
        return [], [f"{path}: no such file"]
    if path.is_char_device():
        return [Source("camera", str(path), str(path))], []
    if not path.is_dir():
        kind: Kind = "video" if path.suffix.lower() in VIDEO_SUFFIXES else "picture"
        return [Source(kind, str(path), str(path))], []
    with faults_as_errors():
        tree = walk(path)
    unread = tree.why_unread()
    found = [Source("picture", str(file), str(file)) for file in tree.pictures()]
    return found, unread or ([] if found else [f"{path}: folder holds no picture"])


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # no name at all, as in a list that is none
        return False


def without_secrets(url: str) -> str:
    """Write a URL for people: no user, no query, and no path that may hold a password.

    Cameras take passwords anywhere, and people do not escape what stands in them.
    """
    scheme, _, rest = url.partition("://")
    host, slash, path = re.split(r"[?#]", rest.rpartition("@")[2])[0].partition("/")
    if re.search(r"pass|pwd|user|auth|token", path, re.IGNORECASE) or "@" in path:
        path = "..."
    return f"{scheme.lower()}://{host}{slash}{path}"


def is_url(argument: str) -> bool:
    """Whether an argument names a stream."""
    scheme = re.match(r"([a-z][a-z0-9+.-]*)://", argument, re.IGNORECASE)
    return scheme is not None and scheme[1].lower() != "file"


def sources_of_input(stream: BinaryIO) -> Iterator[Source | str]:
    """Read standard input: the bytes of one picture, or paths, one a line or after each NUL.

    Yields:
        Sources as they come, and lines that say why there is none.
    """
    head = stream.readline(HEAD_BYTES)  # no further than the first path
    if head.startswith((b"BM", b"RIFF")):
        head += stream.read(HEAD_BYTES - len(head))
    if _begins_picture(head):
        with scratch_folder() as folder:  # Pillow may seek in a file
            file = folder / "picture"
            file.write_bytes(head + stream.read(MAX_PICTURE_BYTES))
            yield Source("picture", str(file), STDIN)
        return
    for raw in _lines(head, stream):
        found, skipped = _expanded(raw.decode(sys.getfilesystemencoding(), "surrogateescape"))
        yield from found
        yield from skipped


def _begins_picture(head: bytes) -> bool:
    if head.startswith(b"BM"):
        return head[6:10] == bytes(4)  # reserved
    if head.startswith(b"RIFF"):
        return head[8:] == b"WEBP"
    is_control = head[:1] == b"\0" or any(0 < byte < ord("\t") for byte in head)
    return head.startswith(PICTURE_HEADS) or is_control


def _lines(head: bytes, stream: BinaryIO) -> Iterator[bytes]:
    """Yield each path as soon as it is whole: who writes them may go on for days."""
    rest = head if head.endswith(b"\n") else head + stream.readline()
    if b"\0" in rest:  # `find -print0`: names may hold line feeds
        yield from filter(None, (rest + stream.read()).split(b"\0"))
        return
    while rest:
        for line in (each.strip(b"\r") for each in rest.split(b"\n")):
            if line and line != STDIN.encode():
                yield line
        rest = stream.readline()
