import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dfkd_edge.files import scratch_folder
from dfkd_edge.runs.lock import locked
from dfkd_edge.runtime import safe_files
from dfkd_edge.runtime.plain_text import hidden_character, printable
from dfkd_edge.runtime.printer import Printer


def test_a_link_under_any_name_we_write_is_replaced_and_its_target_stays(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine", encoding="utf-8")
    path = tmp_path / "run" / "file"
    path.parent.mkdir()
    for link in (path, path.with_name(".file.tmp"), path.with_name(f".file.{os.getpid()}.tmp")):
        link.symlink_to(precious)
    safe_files.write_atomically(path, b"new")
    assert (path.read_bytes(), path.is_symlink()) == (b"new", False)
    with pytest.raises(OSError, match=r"link|loop|levels"):
        safe_files.append_line(path.with_name(".file.tmp"), "line")
    assert precious.read_text(encoding="utf-8") == "mine"


def test_a_folder_for_temporary_files_goes_when_its_process_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, run = tmp_path / "tmp", tmp_path / "run"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    program = (
        "import os; from dfkd_edge.files import *\n"
        "with scratch_folder() as folder: (folder / 'graph').touch(); os.kill(os.getpid(), 9)"
    )
    environment = {**os.environ, "TMPDIR": str(place)}

    def killed() -> Path:
        subprocess.run([sys.executable, "-c", program], env=environment, check=False)
        (left,) = place.iterdir()
        assert (left / "graph").is_file()
        return left

    killed()
    with scratch_folder() as first, scratch_folder() as second:
        assert set(place.iterdir()) == {first, second}
        with locked(run):
            assert set(place.iterdir()) == {first, second}
    killed()
    with locked(run):
        assert not list(place.iterdir())
    killed().chmod(0o770)  # others may have laid it: not to be followed
    with locked(run), scratch_folder() as folder:
        assert len(list(place.iterdir())) == 2
    assert not folder.exists()


@pytest.mark.skipif(os.name != "posix", reason="no pipes in folders")
def test_a_pipe_and_a_folder_are_no_files_and_nobody_waits(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(safe_files.NotPlainError):
            safe_files.reading(path)
    with pytest.raises(OSError, match=str(tmp_path)):
        safe_files.append_line(tmp_path, "line")


def test_what_dead_writers_left_is_removed_and_that_of_living_ones_stays(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from dfkd_edge.runtime.safe_files import *\n"
        "with replacing(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    below = tmp_path / "deep" / "er"
    below.mkdir(parents=True)
    subprocess.run([sys.executable, "-c", program, below / "killed"], check=False)
    (left,) = below.iterdir()
    old = [below / ".shard.0.tmp", below / f".shard.{'0' * 8}-7-{'0' * 16}.tmp"]  # other machines
    young = below / ".young.1.tmp"
    for path in (*old, young, below / "mine.tmp", below / ".mine"):
        path.touch()
    for path in old:
        os.utime(path, (0, time.time() - 2 * safe_files.ABANDONED_S))
    with safe_files.replacing(below / "living"):
        safe_files.remove_leftovers(tmp_path)
        kept = {path.name.partition(".mac")[0] for path in below.iterdir()}
        assert left.name not in kept
        assert {".young.1.tmp", "mine.tmp", ".mine"} < kept
        assert len(kept) == 4  # and the one that is being written
    assert not any(path.exists() for path in old)


def test_files_get_the_permissions_that_the_user_is_used_to_and_caches_none_for_others(
    tmp_path: Path,
) -> None:
    before = os.umask(0o002)
    try:
        safe_files.write_atomically(tmp_path / "usual", b"")
        safe_files.make_private(tmp_path / "a" / "cache")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "usual").stat().st_mode) == 0o664
    assert stat.S_IMODE((tmp_path / "a" / "cache").stat().st_mode) == 0o700
    (tmp_path / "a" / "cache").chmod(0o775)
    (tmp_path / "a" / "cache" / "planted.engine").touch()
    assert safe_files.why_not_private(tmp_path / "a" / "cache") == "can be written by others"
    safe_files.close_cache(tmp_path / "a" / "cache")
    assert not safe_files.why_not_private(tmp_path / "a" / "cache")
    assert not list((tmp_path / "a" / "cache").iterdir())


@pytest.mark.parametrize("hidden", ["\x1b", "\x07", "\x9b", "\u202e", "\u2066", "\u200f", "\u2028"])
def test_a_terminal_gets_no_character_that_moves_hides_or_colours(
    hidden: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hidden_character(f"cat{hidden}") == hidden
    printer = Printer(quiet=False, to_stderr=False)
    printer.say(f"class {hidden}[31mcat")
    printer.warn(f"class {hidden}[31mcat")
    told = capsys.readouterr()
    assert told.out == told.err == f"class \\u{ord(hidden):04x}[31mcat\n"


def test_words_of_every_language_and_emoji_are_no_hidden_characters() -> None:
    persian, hindi, astronaut = "\u0645\u06cc\u200c\u0634", "\u0915\u094d\u200d", "👩\u200d🚀"
    for name in ("Straße", "猫", persian, hindi, astronaut, "naïve café", "😀"):
        assert (hidden_character(name), printable(name)) == ("", name)
    assert printable("\U000e0041") == "\\udb40\\udc41"  # a tag, as JSON has it
