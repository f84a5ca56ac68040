"""Frames of videos, cameras and streams, and videos with the answers drawn in; needs PyAV."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dfkd_edge.bundles.sources import Source
from dfkd_edge.errors import ArtifactError, EnvironmentLackingError, UsageError
from dfkd_edge.files import atomic_stream
from dfkd_edge.runtime.faults import LackingFault, PictureFault

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
    from PIL.Image import Image as Picture

OPEN_S, READ_S = 10.0, 10.0  # A stream that is silent for so long is broken
MAX_LAG_S = 0.5
"""Behind a live stream; frames are left out until it is caught up with."""
MAX_DAMAGED = 100
"""Packets in a row that cannot be decoded: a stream is joined between two whole pictures."""
CAMERAS = {"linux": ("v4l2", "/dev/video"), "darwin": ("avfoundation", ""), "win32": ("dshow", "")}
VIDEO_FORMATS = (
    *("mov", "matroska", "avi", "asf", "flv", "mpeg", "mpegvideo", "mpegts", "ogg"),
    *("h264", "hevc", "mjpeg", "m4v"),
)
"""As FFmpeg calls what files of `VIDEO_SUFFIXES` hold."""
TICKS_A_SECOND = 90_000
CODECS = ("libx264", "mpeg4")  # The first that PyAV was built with


class Frame(NamedTuple):
    """One picture of a video."""

    picture: Picture  # RGB, upright
    number: int  # From 0, in the video
    time_s: float  # Since its first frame
    is_late: bool  # Whether there is no time to classify it


def _av() -> Any:
    try:
        import av
    except ImportError as error:
        hint = "pip install 'dfkd-edge[video]', or pip install av"
        raise LackingFault("videos and cameras need PyAV", hint=hint) from error
    return av


def frames_of(source: Source, clock: Callable[[], float] = time.monotonic) -> Iterator[Frame]:
    """Read the frames of a source.

    Raises:
        LackingFault: PyAV is not installed.
        PictureFault: it is a file that cannot be read, or not to its end.
        EnvironmentLackingError: a camera or a stream cannot be opened.
        ArtifactError: a stream broke.
    """
    av, is_live, number = _av(), source.kind != "video", 0
    try:
        container = _opened(av, source)
    except (av.FFmpegError, ValueError) as error:
        if not is_live:
            raise PictureFault(f"video cannot be read: {_reason(error)}", source.name) from error
        what = f"{source.kind} cannot be opened: {_reason(error)}"
        hint = "look at its address and its plug"
        raise EnvironmentLackingError(what, where=source.name, hint=hint) from error
    with container:
        if not container.streams.video:
            raise PictureFault("holds no video", source.name)
        pace, began_s = _Pace(clock) if is_live else None, None
        try:
            for number, frame in enumerate(_decoded(av, container)):
                began_s = frame.time if began_s is None else began_s
                time_s = (frame.time or 0.0) - (began_s or 0.0)
                is_late = pace is not None and pace.is_late(time_s)
                yield Frame(_upright(frame), number, time_s, is_late)
        except av.FFmpegError as error:
            what = f"broke after frame {number}: {_reason(error)}"
            if not is_live:
                raise PictureFault(what, source.name) from error
            hint = "the command starts it again"
            raise ArtifactError(f"{source.kind} {what}", where=source.name, hint=hint) from error


def _opened(av: Any, source: Source) -> InputContainer:
    path, form, options = source.path, None, {}
    if source.kind == "video":
        # playlists name other files and addresses, whatever their suffix; so may names of files
        path, options = f"file:{path}", {"format_whitelist": ",".join(VIDEO_FORMATS)}
    elif source.kind == "camera":
        form, prefix = CAMERAS.get(sys.platform, ("v4l2", ""))
        path = prefix + path if path.isdecimal() else path
    elif path.lower().startswith("rtsp"):
        options = {"rtsp_transport": "tcp"}  # over UDP, pictures with holes arrive
    container: InputContainer = av.open(
        path, format=form, options=options, timeout=(OPEN_S, READ_S)
    )
    return container


def _decoded(av: Any, container: InputContainer) -> Iterator[VideoFrame]:
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    num_damaged = 0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            num_damaged += 1
            if num_damaged > MAX_DAMAGED:
                raise
            continue
        num_damaged = 0 if frames else num_damaged
        yield from frames


class _Pace:
    """Whether a live stream runs ahead of us."""

    JUMP_S = 10.0  # A camera that starts its clock anew

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._began_s = clock, float("nan")

    def is_late(self, time_s: float) -> bool:
        now_s = self._clock()
        lag_s = now_s - self._began_s - time_s
        if not abs(lag_s) < self.JUMP_S:  # the first one, too
            self._began_s, lag_s = now_s - time_s, 0.0
        elif lag_s < 0:  # it was late before: the fastest frame sets the pace
            self._began_s = now_s - time_s
        return lag_s > MAX_LAG_S


def _upright(frame: VideoFrame) -> Picture:
    """Convert to RGB by the colours that the frame names, and turn it as phones ask for."""
    from PIL import Image

    picture = Image.fromarray(frame.to_ndarray(format="rgb24"))
    return picture.rotate(frame.rotation, expand=True) if frame.rotation else picture


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text[:1].lower() + text[1:]


class AnnotatedVideo:
    """An MP4 that grows frame by frame; it is whole whenever it is closed."""

    def __init__(self, path: Path) -> None:
        """Reserve the name.

        Raises:
            UsageError: it is no .mp4, or is there already.
            LackingFault: PyAV is not installed.
        """
        if path.suffix.lower() != ".mp4":
            raise UsageError("must end in .mp4", where=f"--annotate {path}")
        if path.exists():
            hint = "remove it, or name another file"
            raise UsageError("file is there already", where=f"--annotate {path}", hint=hint)
        self._av, self.path = _av(), path
        self._open = contextlib.ExitStack()  # The file, and its container
        self._container: Any = None
        self._stream: VideoStream | None = None
        self._last = -1

    def write(self, frame: Frame, text: str) -> None:
        """Add a frame with a line of text; after an error nothing is kept.

        Raises:
            EnvironmentLackingError: the disk is full or not writable.
        """
        try:
            self._add(_labelled(frame.picture, text), frame.time_s)
        except Exception as error:
            left, self._open, self._stream = self._open, contextlib.ExitStack(), None
            left.__exit__(type(error), error, error.__traceback__)
            raise

    def _add(self, picture: Picture, time_s: float) -> None:
        if self._stream is None:
            self._stream = self._begin(picture.size)
        stream, shown = self._stream, self._av.VideoFrame.from_image(picture)
        shown = shown.reformat(width=stream.width, height=stream.height, format="yuv420p")
        self._last = max(self._last + 1, round(time_s * TICKS_A_SECOND))
        shown.pts, shown.time_base = self._last, Fraction(1, TICKS_A_SECOND)
        self._container.mux(stream.encode(shown))

    def _begin(self, size: tuple[int, int]) -> VideoStream:
        with contextlib.ExitStack() as opening:
            # a file of ours: FFmpeg would write through a link, and over what is there
            file = opening.enter_context(atomic_stream(self.path))
            made = self._av.open(file, "w", format="mp4")
            self._container = opening.enter_context(contextlib.closing(made))
            codec = next(name for name in CODECS if name in self._av.codecs_available)
            stream: VideoStream = made.add_stream(codec, rate=30)  # frames bring their times
            stream.width, stream.height = (max(2, side // 2 * 2) for side in size)
            stream.pix_fmt = "yuv420p"  # what every player shows; its sides are even
            stream.codec_context.time_base = Fraction(1, TICKS_A_SECOND)
            self._open = opening.pop_all()
            return stream

    def close(self) -> None:
        """Finish the file; nothing is left where there was no frame.

        Raises:
            EnvironmentLackingError: the disk is full or not writable.
        """
        with self._open:
            if self._stream is not None:
                self._container.mux(self._stream.encode(None))


def _labelled(picture: Picture, text: str) -> Picture:
    from PIL import ImageDraw, ImageFont

    drawn = picture.copy()
    pen = ImageDraw.Draw(drawn, "RGBA")
    size_px = max(10, picture.height // 20)
    font = ImageFont.load_default(size_px)
    left, top, right, bottom = pen.textbbox((size_px // 2, size_px // 2), text, font=font)
    pad = size_px // 4
    pen.rectangle((left - pad, top - pad, right + pad, bottom + pad), fill=(0, 0, 0, 160))
    pen.text((size_px // 2, size_px // 2), text, font=font, fill="white")
    return drawn
