import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from dfkd_edge.artifacts import load_tensors, read_metadata
from dfkd_edge.bundles.opening import find_bundle
from dfkd_edge.errors import ArtifactError, RunDirError
from dfkd_edge.files import atomic_write
from dfkd_edge.runs.lock import refuse_run_in_use
from dfkd_edge.runs.run_dir import RunDir, find_run, open_run, point_latest, require_stages
from tests.fixtures.files import edit_json


def _opened(
    run: Path, key: str = "k", *, resume: bool = True, exist_ok: bool = False
) -> AbstractContextManager[RunDir]:
    return open_run(run, key, resume=resume, exist_ok=exist_ok)


def _complete_stage(run: Path, stage: str = "prompts", key: str = "k") -> None:
    with _opened(run, key, exist_ok=True) as run_dir:
        file = run_dir.stage_dir(stage) / "a.txt"
        atomic_write(file, key)
        run_dir.complete(stage, f"{stage} {key}", [file])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """One whose prompts are done."""
    _complete_stage(tmp_path / "run")
    return tmp_path / "run"


def _finish(run: Path) -> None:
    for stage in ("prompts", "surrogates", "student"):
        _complete_stage(run, stage)


def test_a_complete_stage_is_remembered_for_its_key_until_a_file_is_changed_or_missing(
    run: Path,
) -> None:
    with _opened(run) as run_dir:
        assert run_dir.is_complete("prompts", "prompts k")
        assert not run_dir.is_complete("prompts", "other key")
        assert not run_dir.is_complete("student", "student k")
        (run / "prompts" / "a.txt").write_text("changed", encoding="utf-8")
        assert not run_dir.is_complete("prompts", "prompts k")
        (run / "prompts" / "a.txt").unlink()
        assert not run_dir.is_complete("prompts", "prompts k")


def test_another_run_needs_exist_ok(run: Path) -> None:
    with pytest.raises(RunDirError, match="other settings"), _opened(run, "other"):
        pass
    with _opened(run, "other", exist_ok=True) as run_dir:
        assert run_dir.is_complete("prompts", "prompts k")


def test_a_redo_that_was_cut_off_is_no_finished_run_and_loses_no_other_stage(
    tmp_path: Path,
) -> None:
    for stage, key in (("prompts", "k"), ("student", "k"), ("prompts", "other")):
        _complete_stage(tmp_path, stage, key)
    require_stages(tmp_path, {"prompts"})
    with pytest.raises(RunDirError, match="no finished student"):
        require_stages(tmp_path, {"prompts", "student"})
    with _opened(tmp_path, exist_ok=True) as run_dir:
        assert not run_dir.is_complete("prompts", "prompts k")  # its file was written over
        assert run_dir.is_complete("student", "student k")
    require_stages(tmp_path, {"student"})


def test_processes_that_write_one_file_leave_it_whole(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from dfkd_edge.files import atomic_write\n"
        "for _ in range(300): atomic_write(Path(sys.argv[1]), sys.argv[2] * 1000)"
    )
    path = tmp_path / "file"
    writers = [subprocess.Popen([sys.executable, "-c", program, path, x]) for x in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert path.read_text(encoding="utf-8") in ("a" * 1000, "b" * 1000)
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_from_before_the_first_write_is_taken_for_empty(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    (tmp_path / ".manifest.json.123.tmp").touch()
    with _opened(tmp_path):
        assert find_run(tmp_path) == tmp_path.resolve()


def test_no_resume_starts_over(run: Path) -> None:
    with _opened(run, resume=False) as run_dir:
        assert not run_dir.is_complete("prompts", "prompts k")
    assert not (run / "prompts").exists()


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine", encoding="utf-8")
    opened = _opened(tmp_path, resume=False, exist_ok=True)
    with pytest.raises(RunDirError, match="holds no run"), opened:
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_in_use_is_told_before_anything_is_loaded_with_its_holder_and_what_next(
    run: Path, quickstart: Path
) -> None:
    flags = ("distill", "--classes", quickstart, "-o", run)
    program = [sys.executable, "-m", "dfkd_edge", *map(str, flags), "--exist-ok"]
    with _opened(run):
        done = subprocess.run(program, capture_output=True, text=True)
        with pytest.raises(RunDirError, match="in use"), _opened(run):
            pass
    holder = f"run is in use by process {os.getpid()} on "
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert holder in done.stderr
    assert f"({run}): wait for it or stop it" in done.stderr
    refuse_run_in_use(run)
    assert not (run / ".lock.holder").exists()


def test_a_lock_that_a_kill_left_behind_holds_nobody_up(tmp_path: Path) -> None:
    for name in (".lock", ".lock.holder"):
        (tmp_path / name).write_text("process 1 on another\n", encoding="utf-8")
    refuse_run_in_use(tmp_path)
    with _opened(tmp_path):
        assert str(os.getpid()) in (tmp_path / ".lock.holder").read_text(encoding="utf-8")


def test_a_damaged_manifest_is_reported(run: Path) -> None:
    (run / "manifest.json").write_text("{", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        find_run(run)


def test_a_step_that_ran_twice_counts_once(run: Path) -> None:
    with _opened(run) as run_dir:
        for loss in (3.0, 2.0):
            run_dir.append_metrics("student", 10, {"loss": loss})
        with (run_dir.path / "metrics.jsonl").open("a", encoding="utf-8") as stream:
            stream.write('{"stage": "student", "st')  # cut short by a kill
        assert run_dir.read_metrics() == [{"stage": "student", "step": 10, "loss": 2.0}]
        run_dir.append_metrics("student", 20, {"loss": 1.0})  # on a line of its own
        assert [row["step"] for row in run_dir.read_metrics()] == [10, 20]


def test_a_missing_run_names_the_one_that_was_cut_off(tmp_path: Path) -> None:
    latest, pets = tmp_path / "latest", tmp_path / "pets"
    with pytest.raises(RunDirError, match="run dfkd-edge distill first"):
        find_run(latest)
    _complete_stage(pets)
    with pytest.raises(
        RunDirError, match=f"{pets} is unfinished: dfkd-edge distill --config {pets}/"
    ):
        find_run(latest)
    _finish(pets)
    with pytest.raises(RunDirError, match=f"name a run, such as {pets}$"):
        find_run(latest)
    _complete_stage(tmp_path / "newer")
    with pytest.raises(RunDirError, match=f"such as {pets}$"):
        find_run(latest)


def test_a_mistyped_run_names_the_finished_one_of_a_like_name_and_none_that_is_in_use(
    tmp_path: Path,
) -> None:
    runs = tmp_path / "runs"
    for name in ("garden-1a2b", "pets-3c4d"):
        _finish(runs / name)
    for mistyped in (runs / "garden-1", tmp_path / "garden-1a2b"):
        with pytest.raises(RunDirError, match=r"such as .*runs/garden-1a2b$"):
            find_run(mistyped)
    with _opened(runs / "garden-1a2b"):
        with pytest.raises(RunDirError, match=r"such as .*runs/pets-3c4d$"):
            find_run(runs / "garden-1")
        works = rf"is unfinished: process {os.getpid()} on .* works"
        with _opened(runs / "pets-3c4d"), pytest.raises(RunDirError, match=works):
            find_run(runs / "garden-1")


def test_latest_names_the_newest_run(tmp_path: Path) -> None:
    for name in ("first", "second"):
        _complete_stage(tmp_path / name)
        point_latest(tmp_path, tmp_path / name)
    assert find_run(tmp_path / "latest") == (tmp_path / "second").resolve()


HOSTILE_STAGES = ("/abs", "../beside", "a/b", "bundles", ".", "", "student/..", "config.toml")


@pytest.mark.parametrize("part", ["stages", "earlier"])
@pytest.mark.parametrize("stage", [*HOSTILE_STAGES, "{beside}"])
def test_a_stage_that_is_no_name_of_ours_deletes_nothing(
    run: Path, tmp_path: Path, stage: str, part: str
) -> None:
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "thesis.tex").write_text("mine", encoding="utf-8")
    record = {"key": "k", "files": {}}
    edit_json(run / "manifest.json", **{part: {stage.format(beside=beside): record}})
    for opened in (_opened(run, resume=False, exist_ok=True), _opened(run, exist_ok=True)):
        with pytest.raises(ArtifactError, match="manifest cannot be read"), opened:
            pass
    assert (beside / "thesis.tex").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    "record",
    [
        None,
        {"key": 3, "files": {}},
        {"key": "k"},
        {"key": "k", "files": ["prompts/a.txt"]},
        {"key": "k", "files": {"prompts/a.txt": ["x"]}},
        {"key": "k", "files": {"/etc/passwd": "x"}},
        {"key": "k", "files": {"prompts/../../x": "x"}},
        {"key": "k", "files": {"student/a.txt": "x"}},
        {"key": "k", "files": {"prompts/\u202ea": "x"}},
    ],
)
def test_a_record_that_is_none_or_names_files_elsewhere_is_one_line(
    run: Path, record: object
) -> None:
    edit_json(run / "manifest.json", stages={"prompts": record})
    with pytest.raises(ArtifactError, match=r"manifest cannot be read .*: use a new --output"):
        find_run(run)


def test_a_manifest_without_end_is_one_line(run: Path) -> None:
    (run / "manifest.json").write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        find_run(run)


LINKED = (".lock", ".lock.holder", "run.log", "metrics.jsonl", "student", "bundles", "devices")


@pytest.fixture
def precious(tmp_path: Path) -> Path:
    """A file of the user, outside of the run."""
    path = tmp_path / "precious"
    path.write_text("mine", encoding="utf-8")
    return path


@pytest.mark.parametrize("name", LINKED)
def test_a_link_where_a_run_is_written_is_refused_and_leads_nowhere(
    run: Path, precious: Path, name: str
) -> None:
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(precious)
    with pytest.raises(RunDirError, match=rf"is a link: nothing is written .*{name}"), _opened(run):
        pass
    refuse_run_in_use(run)  # to look who works there opens no link either
    if name in ("run.log", "metrics.jsonl"):
        with pytest.raises(OSError, match=r"link|loop|levels"):
            RunDir(run).log("line") if name == "run.log" else RunDir(run).append_metrics("a", 1, {})
    assert precious.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("name", [".lock", "run.log", "metrics.jsonl"])
def test_a_file_of_a_run_that_has_another_name_elsewhere_is_not_changed_there(
    run: Path, precious: Path, name: str
) -> None:
    (run / name).unlink(missing_ok=True)
    (run / name).hardlink_to(precious)  # as an archive may bring it
    refuse_run_in_use(run)
    with _opened(run) as run_dir:
        run_dir.log("line")
        run_dir.append_metrics("a", 1, {})
    assert precious.read_text(encoding="utf-8") == "mine"
    assert name == ".lock" or "mine" in (run / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("read", [load_tensors, read_metadata])
def test_a_pipe_in_place_of_tensors_is_not_waited_for(
    read: Callable[[Path], object], tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "prompts.safetensors")
    with contextlib.suppress(ArtifactError):
        assert read(tmp_path / "prompts.safetensors") is None


def test_a_stage_behind_a_link_is_not_written_and_its_files_do_not_count(
    run: Path, tmp_path: Path
) -> None:
    elsewhere = (run / "prompts").rename(tmp_path / "elsewhere")
    with _opened(run) as run_dir:
        (run / "prompts").symlink_to(elsewhere)
        assert not run_dir.is_complete("prompts", "prompts k")
        with pytest.raises(RunDirError, match="is a link"):
            run_dir.stage_dir("prompts")
        run_dir.restart()
    assert (elsewhere / "a.txt").exists()


def test_a_run_that_is_opened_again_keeps_no_temporary_file_of_a_killed_one(run: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path\n"
        "from dfkd_edge.runtime.safe_files import replacing\n"
        "with replacing(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    for name in ("manifest.json", "prompts/a.txt"):
        subprocess.run([sys.executable, "-c", program, run / name], check=False)
    assert len([p for p in run.rglob("*.tmp")]) == 2
    with _opened(run):
        assert not list(run.rglob("*.tmp"))


def test_a_latest_that_is_a_folder_stays_and_is_never_taken_for_the_newest_run(
    tmp_path: Path,
) -> None:
    _complete_stage(tmp_path / "latest")  # as an archive or a copy leaves it
    assert find_run(tmp_path / "latest") == (tmp_path / "latest").resolve()  # it is the only one
    _complete_stage(tmp_path / "newer")
    point_latest(tmp_path, tmp_path / "newer")
    assert {path.name for path in tmp_path.iterdir()} == {"latest", "newer"}
    with pytest.raises(
        RunDirError, match=rf"not the link to the newest .*such as {tmp_path}/newer"
    ):
        find_run(tmp_path / "latest")
    with pytest.raises(RunDirError, match="not the link to the newest"):
        find_bundle(tmp_path / "latest")
