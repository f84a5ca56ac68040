"""Replacing a bundle loses nothing, wherever it is stopped."""

from dataclasses import replace
from pathlib import Path

import pytest

from dfkd_edge.bundles import scratch
from dfkd_edge.bundles.bundle import BundleContents, write_bundle
from dfkd_edge.bundles.opening import open_bundle, put_back
from dfkd_edge.bundles.scratch import export_scratch, undo_swap
from dfkd_edge.runs.run_dir import open_run
from dfkd_edge.runtime.bundle_files import Bundle

RESULT = Path("devices") / "board.json"


@pytest.fixture
def bundle(tiny_bundle: Bundle) -> Path:
    """A bundle that keeps the result of a device."""
    (tiny_bundle.folder / RESULT).parent.mkdir()
    (tiny_bundle.folder / RESULT).write_text("from a device", encoding="utf-8")
    return tiny_bundle.folder


def stop_at_rename(patch: pytest.MonkeyPatch, number: int, is_done: bool) -> None:
    """Let Ctrl-C come at a rename, counted from 0: before it or after it."""
    rename, begun = Path.rename, list[Path]()

    def stopped(source: Path, target: Path) -> Path:
        begun.append(source)
        is_here = len(begun) == number + 1
        if is_here and not is_done:
            raise KeyboardInterrupt
        moved = rename(source, target)
        if is_here:
            raise KeyboardInterrupt
        return moved

    patch.setattr(Path, "rename", stopped)


def assert_whole(folder: Path, status: str) -> None:
    """Nothing but one whole bundle is there, with what a device said."""
    assert open_bundle(folder).manifest.status == status
    assert (folder / RESULT).read_text(encoding="utf-8") == "from a device"
    assert [path for path in folder.parent.iterdir() if path.name[0] != "."] == [folder]
    assert not list(folder.parent.glob(".bundle*"))


@pytest.mark.parametrize(
    ("number", "is_done", "status"),
    [(0, False, "passed"), (0, True, "passed"), (1, False, "passed"), (1, True, "failed")],
)
def test_a_replacement_stopped_anywhere_leaves_one_whole_bundle_with_its_results(
    bundle: Path,
    tiny_contents: BundleContents,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    is_done: bool,
    status: str,
) -> None:
    stop_at_rename(monkeypatch, number, is_done)
    with pytest.raises(KeyboardInterrupt):
        write_bundle(bundle, replace(tiny_contents, status="failed"))
    assert_whole(bundle, status)


@pytest.mark.parametrize("is_exported_again", [True, False])
def test_a_bundle_that_a_kill_took_away_is_put_back(
    bundle: Path, tiny_contents: BundleContents, tmp_path: Path, is_exported_again: bool
) -> None:
    with open_run(tmp_path / "run", "key", resume=True, exist_ok=False) as run:
        folder = run.path / "bundles" / "board"
    folder.parent.mkdir()
    bundle.rename(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scratch, "undo_swap", lambda _: None)  # nobody cleans up after SIGKILL
        stop_at_rename(patch, 0, is_done=True)
        with pytest.raises(KeyboardInterrupt):
            write_bundle(folder, replace(tiny_contents, status="failed"))
    assert not folder.exists()
    if is_exported_again:
        with export_scratch(run.path):
            assert_whole(folder, "passed")
    else:
        write_bundle(folder, tiny_contents)
    assert_whole(folder, "passed")


@pytest.mark.parametrize("num_readers", [1, 3])
def test_a_reader_who_puts_the_old_bundle_back_meanwhile_undoes_no_replacement(
    bundle: Path, tiny_contents: BundleContents, monkeypatch: pytest.MonkeyPatch, num_readers: int
) -> None:
    rename, waiting = Path.rename, list(range(num_readers))

    def read_between(source: Path, target: Path) -> Path:
        moved = rename(source, target)
        if target.name == "old" and waiting:
            waiting.pop()
            put_back(bundle.parent)
            assert open_bundle(bundle).manifest.status == "passed"
        return moved

    monkeypatch.setattr(Path, "rename", read_between)
    write_bundle(bundle, replace(tiny_contents, status="failed"))
    assert not waiting
    assert_whole(bundle, "failed")


def test_what_a_kill_left_beside_a_whole_bundle_goes(bundle: Path, tmp_path: Path) -> None:
    beside = tmp_path / f".bundle-{bundle.name}"
    (beside / "fresh" / "student").mkdir(parents=True)
    undo_swap(bundle)
    assert_whole(bundle, "passed")
