"""The damaged inputs that were found are read rightly, or refused in one line."""

import mmap
import shutil
from pathlib import Path

import pytest

from tests.damaged import corpus, watch
from tests.damaged.every import MODULES, SHARES, find_target
from tests.damaged.watch import fault_of

MAX_CORPUS_BYTES = 300_000


@pytest.mark.parametrize("name", SHARES)
def test_no_kept_input_does_more_than_be_read_or_refused(name: str, tmp_path: Path) -> None:
    target, kept, faults = find_target(name), corpus.kept(name), dict[str, str]()
    assert kept
    if name in MODULES:
        next(target.seeds(tmp_path))  # makes the whole files once, beside the folder
    for key, content in kept.items():
        fault = fault_of(target.read, content, tmp_path / "input")
        shutil.rmtree(tmp_path / "input")
        faults |= {key: fault} if fault else {}
    assert not faults


def test_the_watch_hears_what_a_reader_must_not_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "MAX_GROWTH_MIB", 100.0)

    def touches(content: bytes, folder: Path) -> None:
        (tmp_path / "beside").write_bytes(content)

    def raises(content: bytes, folder: Path) -> None:
        raise KeyError("a")

    def holds(content: bytes, folder: Path) -> None:
        held = mmap.mmap(-1, 200 << 20)  # the heap may hold as much that is free
        for page in range(0, len(held), mmap.PAGESIZE):
            held[page] = 1

    for number, (read, said) in enumerate(
        ((touches, "leaves its folder"), (raises, "KeyError"), (holds, "MiB"))
    ):
        assert said in fault_of(read, b"", tmp_path / str(number))


def test_the_corpus_stays_small() -> None:
    assert sum(path.stat().st_size for path in corpus.FOLDER.iterdir()) < MAX_CORPUS_BYTES
