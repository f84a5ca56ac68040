"""`predict` in a pipe: what comes in on standard input, and what other programs read of it."""

import contextlib
import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from dfkd_edge.commands.predict_view import Pulse
from dfkd_edge.runtime.bundle_files import Bundle
from tests.fixtures.command import call
from tests.fixtures.files import write_picture
from tests.fixtures.videos import NUM_FRAMES, lines_of


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Return what puts bytes on standard input."""
    return lambda raw: monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(raw)))


def test_no_answer_runs_in_a_spreadsheet(tiny_bundle: Bundle, tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        write_picture(Path("=1+1.png"), 0)
        output = call("predict", tiny_bundle.folder, "=1+1.png", "--format", "csv")[1]
    assert next(csv.DictReader(io.StringIO(output)))["file"] == "'=1+1.png"


def test_standard_input_is_a_picture_or_a_list_of_what_to_read(
    tiny_bundle: Bundle, clip: Path, tmp_path: Path, given: Callable[[bytes], None]
) -> None:
    odd, other = (write_picture(tmp_path / name, 0) for name in ("odd\nname.png", "b.png"))
    arguments = ("predict", tiny_bundle.folder, "-", "--format", "jsonl")
    for raw, names in (
        (other.read_bytes(), ["-"]),
        (f"{other}\n\n{clip}\r\n".encode(), [str(other), *[str(clip)] * NUM_FRAMES]),
        (f"{other}\0{odd}\0".encode(), [str(other), str(odd)]),
        (f"{other}\n{other}.gone\n".encode(), [str(other)]),
    ):
        given(raw)
        code, output, errors = call(*arguments)
        assert [row["file"] for row in lines_of(output)] == names
        assert code == int(b"gone" in raw)
        assert (".gone: no such file" in errors) is bool(code)
    given(b"")
    code, output, errors = call(*arguments)
    assert (code, output) == (2, "")
    assert "no picture to classify (standard input)" in errors
    for raw, said in (
        (b"\xff\xd8\xff\xe0cut", "skipped: -: picture cannot be read: "),
        (b"\0\0\0\x18ftypheic", "skipped: -: picture cannot be read: its format is HEIF"),
        (b"x" * 5_000, "x: no such file"),
    ):
        given(raw)
        code, _, errors = call(*arguments)
        assert (code, "unexpected" in errors) == (1, False)
        assert said in errors


@pytest.mark.parametrize(("quiet", "num_told"), [((), NUM_FRAMES), (("--quiet",), 0)])
def test_a_long_run_says_in_a_log_how_far_it_is(
    tiny_bundle: Bundle,
    clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    quiet: tuple[str, ...],
    num_told: int,
) -> None:
    monkeypatch.setattr(Pulse, "FIRST_S", 0.0)
    _, output, errors = call("predict", tiny_bundle.folder, clip, "--json", *quiet)
    assert len(json.loads(output)["pictures"]) == NUM_FRAMES
    told = errors.splitlines()
    assert len(told) == num_told
    assert all(" images/s: " in line and "clip.mp4" in line for line in told)


def test_a_pipe_gets_each_answer_at_once(tiny_bundle: Bundle, tmp_path: Path) -> None:
    picture = write_picture(tmp_path / "a.png", 0)
    command = [sys.executable, "-m", "dfkd_edge", "predict", str(tiny_bundle.folder), "-"]
    process = subprocess.Popen(
        [*command, "--format", "jsonl"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=-1
    )
    assert process.stdin
    assert process.stdout
    with process:
        for _ in range(2):
            process.stdin.write(f"{picture}\n".encode())
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["file"] == str(picture)
        process.stdin.close()
        assert process.wait(20) == 0
