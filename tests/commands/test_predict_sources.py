"""`predict` on what people have: videos, streams, pipes and lists; real ones, made here."""

import _thread
import contextlib
import csv
import io
import json
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfkd_edge.bundles import video
from dfkd_edge.bundles.sources import Source
from dfkd_edge.bundles.video import frames_of
from dfkd_edge.runtime.bundle_files import Bundle
from dfkd_edge.runtime.faults import PictureFault
from dfkd_edge.runtime.safe_files import temporary_beside
from tests.fixtures.command import call, invoke
from tests.fixtures.videos import NUM_FRAMES, RATE, lines_of, write_video


@pytest.fixture(scope="module")
def broadcast(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The same as a stream that may be joined anywhere."""
    path = write_video(tmp_path_factory.mktemp("video") / "clip.ts", "mpeg2video")
    return path.read_bytes()


Serve = Callable[[Callable[[socket.socket], None]], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Return what serves one reader on this machine, and its address."""
    with contextlib.ExitStack() as stack:

        def start(talk: Callable[[socket.socket], None]) -> str:
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

            def answer() -> None:
                with contextlib.suppress(OSError):
                    connection, _ = server.accept()
                    with connection:
                        talk(connection)

            thread = threading.Thread(target=answer)
            thread.start()
            stack.callback(thread.join, 20)
            return f"tcp://viewer:secret@127.0.0.1:{server.getsockname()[1]}"

        yield start


def test_a_video_is_read_frame_by_frame_and_its_table_has_a_row_for_each_stretch(
    tiny_bundle: Bundle, clip: Path
) -> None:
    arguments = ("predict", tiny_bundle.folder, clip, "--reject-threshold", "0")
    code, output, errors = call(*arguments, "--format", "jsonl")
    rows = lines_of(output)
    assert (code, len(rows)) == (0, NUM_FRAMES)
    assert [row["frame"] for row in rows] == list(range(NUM_FRAMES))
    assert [row["time_s"] for row in rows] == [n / RATE for n in range(NUM_FRAMES)]
    black, red = rows[0]["label"], rows[-1]["label"]
    assert [row["label"] for row in rows] == [black] * 10 + [red] * 10 != [red] * 20
    assert "20 images in " in errors
    assert "images/s, with model.int8.onnx in onnxruntime" in errors
    output = invoke(*arguments, COLUMNS="120").stdout
    table = [line for line in output.splitlines() if "clip.mp4" in line]
    assert ["0.0 to 0.9 s" in table[0], "1.0 to 1.9 s" in table[1]] == [True, True]
    assert all("10 frames" in line for line in table)
    code, output, _ = call(*arguments, "--format", "csv", "--top", "9")
    listed = list(csv.DictReader(io.StringIO(output)))
    assert [row["label"] for row in listed] == [row["label"] for row in rows]
    assert float(listed[3]["score_2"]) == pytest.approx(rows[3]["top"][1]["score"], abs=1e-6)
    document = json.loads(call(*arguments, "--json")[1])
    assert document["pictures"] == rows
    assert document["images_per_s"] > 0


def test_the_answers_are_drawn_into_a_copy_of_the_video(
    tiny_bundle: Bundle, clip: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "out.mp4"
    arguments = ("predict", tiny_bundle.folder, clip, "--annotate", out)
    assert call(*arguments)[0] == 0
    drawn = list(frames_of(Source("video", str(out), "out")))
    plain = list(frames_of(Source("video", str(clip), "clip")))
    assert [round(f.time_s, 2) for f in drawn] == [round(f.time_s, 2) for f in plain]
    for before, after in zip(plain, drawn, strict=True):
        assert before.picture.size == after.picture.size
        change = np.abs(np.asarray(before.picture, int) - np.asarray(after.picture, int))
        assert change[:16].mean() > 3 * change[24:].mean()
    assert [path.name for path in out.parent.iterdir()] == ["out.mp4"]
    for wrong, said in (
        ((*arguments,), "file is there already"),
        ((*arguments[:-1], tmp_path / "a.gif"), "must end in .mp4"),
        ((*arguments[:3], clip, "--annotate", tmp_path / "b.mp4"), "name one and nothing else"),
    ):
        code, output, errors = call(*wrong)
        assert (code, output, errors.count("\n")) == (2, "", 1)
        assert said in errors


def test_a_drawn_video_is_whole_or_not_there(
    tiny_bundle: Bundle, clip: Path, tmp_path: Path
) -> None:
    out, dead = tmp_path / "new" / "out.mp4", subprocess.Popen(["true"])
    dead.wait()
    out.parent.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.getpid", lambda: dead.pid)
        left = temporary_beside(out)
    left.write_bytes(b"cut")
    arguments = ("predict", tiny_bundle.folder, clip, "--annotate", out)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))  # a disk that is full soon
    try:
        code, _, errors = call(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 4
    assert "cannot write" in errors
    assert not list(out.parent.iterdir())
    assert call(*arguments)[0] == 0
    assert [path.name for path in out.parent.iterdir()] == ["out.mp4"]


@pytest.mark.parametrize(
    "content",
    [
        "ffconcat version 1.0\nfile other.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nother.mp4\n#EXT-X-ENDLIST\n",
    ],
    ids=["concat", "HLS"],
)
def test_a_playlist_that_is_named_like_a_video_opens_no_other_file(
    clip: Path, tmp_path: Path, content: str
) -> None:
    (tmp_path / "other.mp4").write_bytes(clip.read_bytes())
    (tmp_path / "list.mp4").write_text(content)
    with pytest.raises(PictureFault, match="cannot be read"):
        next(frames_of(Source("video", str(tmp_path / "list.mp4"), "list.mp4")))


def test_a_file_that_is_named_like_an_address_is_opened_as_a_file(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("concat:a|b.mp4").write_bytes(clip.read_bytes())
    assert len(list(frames_of(Source("video", "concat:a|b.mp4", "clip")))) == NUM_FRAMES


def test_videos_of_every_container_are_of_formats_that_are_read(tmp_path: Path) -> None:
    codecs = {".mpg": "mpeg2video", ".m2ts": "mpeg2video", ".flv": "flv", ".webm": "libvpx"}
    for suffix in (".mov", ".3gp", ".mkv", ".avi", *codecs):
        path = write_video(tmp_path / f"clip{suffix}", codecs.get(suffix, "mpeg4"))
        assert next(frames_of(Source("video", str(path), "clip"))).picture.size == (64, 48)


def test_a_video_that_a_phone_turned_is_seen_upright(tmp_path: Path) -> None:
    path = write_video(tmp_path / "phone.mp4", turned=90)
    first = next(frames_of(Source("video", str(path), "phone")))
    assert first.picture.size == (48, 64)
    assert min(first.picture.getpixel((4, 60))) > 200  # type: ignore[arg-type]  # turned to the left


@pytest.mark.parametrize("is_reset", [False, True], ids=["ends", "breaks"])
def test_a_stream_gives_its_frames_and_says_in_one_line_that_it_broke(
    tiny_bundle: Bundle, broadcast: bytes, serve: Serve, is_reset: bool
) -> None:
    def talk(connection: socket.socket) -> None:
        connection.sendall(broadcast)
        if is_reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            threading.Event().wait(0.5)  # until all of it is read, which the reset would discard

    url = serve(talk)
    code, output, errors = call("predict", tiny_bundle.folder, url, "--format", "jsonl")
    assert "secret" not in output + errors
    num = NUM_FRAMES - is_reset  # a codec holds the last one back until the end
    assert [row["time_s"] for row in lines_of(output)] == [n / RATE for n in range(num)]
    assert f"{num} images in " in errors
    last = errors.splitlines()[-1]
    assert code == int(is_reset)
    assert last.startswith("error: stream broke after frame 18: ") is is_reset, errors
    assert len(errors.splitlines()) == 1 + is_reset


def test_a_stream_that_is_silent_is_broken(
    tiny_bundle: Bundle, broadcast: bytes, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("OPEN_S", "READ_S"):
        monkeypatch.setattr(video, limit, 0.5)
    over = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.sendall(broadcast)
        over.wait(20)

    code, _, errors = call("predict", tiny_bundle.folder, serve(talk), "--format", "csv")
    over.set()
    assert code in (1, 4), errors  # before or after the first frame
    assert errors.splitlines()[-1].startswith("error: stream ")


@pytest.fixture
def heeds_ctrl_c() -> Iterator[None]:
    """Let Ctrl-C interrupt: a shell starts what runs in its background deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_ends_a_stream_with_the_table_and_the_video_whole(
    tiny_bundle: Bundle,
    broadcast: bytes,
    serve: Serve,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labelled = video._labelled
    seen = []

    def stop_after_ten(picture: Image.Image, text: str) -> Image.Image:
        seen.append(text)
        if len(seen) == 10:
            _thread.interrupt_main()
        return labelled(picture, text)

    monkeypatch.setattr(video, "_labelled", stop_after_ten)
    url = serve(lambda connection: connection.sendall(broadcast))
    out = tmp_path / "out.mp4"
    code, output, errors = call("predict", tiny_bundle.folder, url, "--annotate", out)
    assert (code, errors) == (0, "")
    assert "10 images in " in output or "11 images in " in output
    assert len(list(frames_of(Source("video", str(out), "out")))) in (9, 10, 11)


@pytest.mark.parametrize(
    ("argument", "code", "said"),
    [
        (
            "rtsp://user:secret@127.0.0.1:1/a",
            4,
            "stream cannot be opened: connection refused (rtsp://127.0.0.1:1/a)",
        ),
        ("97", 4, "camera cannot be opened: no such file or directory (camera 97)"),
        ("/dev/video97", 4, "camera cannot be opened: no such file or directory (/dev/video97)"),
        ("nothing.mp4", 2, "no picture to classify (nothing.mp4: no such file)"),
    ],
)
def test_what_is_not_there_is_one_line(
    tiny_bundle: Bundle, argument: str, code: int, said: str
) -> None:
    found, output, errors = call("predict", tiny_bundle.folder, argument)
    assert (found, output, errors.count("\n")) == (code, "", 1)
    assert said in errors


def test_a_damaged_video_is_skipped_and_the_rest_goes_on(
    tiny_bundle: Bundle, clip: Path, tmp_path: Path
) -> None:
    (tmp_path / "half.mp4").write_bytes(clip.read_bytes()[100:600])
    arguments = ("predict", tiny_bundle.folder, tmp_path / "half.mp4", clip, "--format", "jsonl")
    code, output, errors = call(*arguments)
    assert (code, len(lines_of(output))) == (1, NUM_FRAMES)
    assert "half.mp4: video cannot be read: " in errors
    assert "1 of 21 could not be classified" in errors


def test_frames_are_left_out_when_a_camera_is_faster_and_its_clock_may_jump() -> None:
    now_s = [100.0]
    pace = video._Pace(lambda: now_s[0])
    late = []
    for now_s[0], time_s in (
        *((100.0, 7.0), (100.1, 7.1), (101.0, 7.2), (101.1, 7.9)),
        *((150.0, 8.0), (150.1, 8.1), (150.8, 8.2)),
    ):
        late.append(pace.is_late(time_s))
    assert late == [False, False, True, False, False, False, True]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--format", "cvs"), "cannot be cvs (--format): did you mean csv?"),
        (("--format", "csv", "--json"), "cannot be csv (--format): leave out one of both"),
        (
            ("--json", "rtsp://127.0.0.1:1/a"),
            "one document has no end here (camera or stream)",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(
    tiny_bundle: Bundle, clip: Path, flags: tuple[str, ...], said: str
) -> None:
    code, output, errors = call("predict", tiny_bundle.folder, clip, *flags)
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert said in errors


def test_without_pyav_one_line_says_what_to_install(
    tiny_bundle: Bundle, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    code, output, errors = call("predict", tiny_bundle.folder, clip)
    assert (code, output) == (4, "")
    assert errors == (
        "error: videos and cameras need PyAV: pip install 'dfkd-edge[video]', or pip install av\n"
    )
