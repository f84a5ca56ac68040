"""Images saved for other programs are read back by the libraries that those programs use."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image
from pyarrow import parquet

from dfkd_edge.artifacts import Bytes, Ints, RowStore
from dfkd_edge.class_names import ClassNames
from dfkd_edge.config.settings import PromptConfig
from dfkd_edge.errors import EnvironmentLackingError, RunDirError, UsageError
from dfkd_edge.networks.teacher import Teacher
from dfkd_edge.prompts import diversify_prompts
from dfkd_edge.runs.context import StageContext
from dfkd_edge.runs.surrogates import read_surrogates, write_shard
from dfkd_edge.synthesis import saved_images
from dfkd_edge.synthesis.saved_images import SavedSet, save_images
from dfkd_edge.synthesis.saving import DESCRIPTION, SaveFormat, SavePlan, plan_saving
from dfkd_edge.synthesis.selection import write_selection
from tests.conftest import SilentReporter
from tests.fixtures.files import read_json
from tests.fixtures.typed import whole

SIDE_PX, SHARD, NUM_SHARDS = 8, 20, 2
FOLDERS = ["000-dog", "001-etc-passwd", "002-nul-a"]


@pytest.fixture
def saved(tmp_path: Path, tiny_teacher: Teacher, context: StageContext) -> SavedSet:
    """Forty images of classes with hostile names, one of them of a drawing."""
    random, names = np.random.default_rng(0), ("dog", "../etc/passwd", 'nul "ä\\')
    classes = ClassNames(names, (None, None, None))
    teacher = Teacher(tiny_teacher.model, tiny_teacher.tokenizer, tiny_teacher.config, classes)
    prompts = diversify_prompts(teacher, PromptConfig(method="base"), context)
    for number in range(NUM_SHARDS):
        embedding = random.normal(size=(SHARD, teacher.embed_dim)).astype(np.float32)
        candidates: dict[str, Any] = {
            "images": random.integers(0, 256, (SHARD, SIDE_PX, SIDE_PX, 3), np.uint8),
            "class_index": np.arange(SHARD) % 3,
            "style_index": np.zeros(SHARD, np.int64),
            "drawing_index": np.where(np.arange(SHARD) + number, -1, 4),  # the very first
            "embeddings": embedding / np.linalg.norm(embedding, axis=1, keepdims=True),
            "probability": np.ones(SHARD, np.float32),
            "is_recognised": np.ones(SHARD, np.bool_),
        }
        write_shard(tmp_path / "shards", number, "key", candidates)
    write_selection(tmp_path / "shards", NUM_SHARDS, 0.2, "key")
    return SavedSet(read_surrogates(tmp_path / "shards", names, "key"), prompts, teacher)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved_images, "READ_TOGETHER", 6)
    monkeypatch.setattr(saved_images, "TAR_SIZE", 10)


@pytest.fixture
def plan_of(tmp_path: Path) -> Callable[[SaveFormat], SavePlan]:
    """Plan to save the images of a run in the test's folder."""

    def made(wanted: SaveFormat) -> SavePlan:
        plan = plan_saving(tmp_path / "saved", wanted, tmp_path / "run", "run key")
        assert plan
        return plan

    return made


def files(folder: Path) -> dict[str, int]:
    """Every file below, with the time of its last change."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in found}


def check_record(saved: SavedSet, row: int, record: dict[str, Any]) -> None:
    made = saved.surrogates
    label = made.class_index[row]
    assert record["class_index"] == label
    assert record["class_name"] == saved.teacher.classes.names[label]
    assert record["style"] == saved.prompts.style_labels[0]
    assert record["drawing"] == (4 if row == 0 else None)
    assert record["is_heldout"] == made.is_heldout[row]


def check_probabilities(saved: SavedSet, row: int, probability_K: Any, asked: float) -> None:
    (expected_K,) = saved.probabilities(np.array([row]))
    np.testing.assert_allclose(probability_K, expected_K, atol=1e-6)
    assert np.sum(probability_K) == pytest.approx(1, abs=1e-5)
    assert asked == pytest.approx(probability_K[saved.surrogates.class_index[row]], abs=1e-7)


def test_a_folder_a_class_holds_the_very_pixels_and_a_table_that_pyarrow_reads(
    saved: SavedSet, plan_of: Callable[[SaveFormat], SavePlan]
) -> None:
    plan, image_NHWC = plan_of("folder"), whole(saved.surrogates.images)
    save_images(saved, plan, SilentReporter())
    table = parquet.read_table(plan.folder / "metadata.parquet").to_pylist()
    assert len(table) == len(saved.surrogates) == 40
    for row, entry in enumerate(table):
        assert entry["file_name"].startswith(f"{FOLDERS[entry['class_index']]}/")
        with Image.open(plan.folder / entry["file_name"]) as picture:
            np.testing.assert_array_equal(np.asarray(picture), image_NHWC[row])
        check_record(saved, row, entry)
        check_probabilities(saved, row, entry["probabilities"], entry["probability"])
    assert sorted(path.name for path in plan.folder.iterdir() if path.is_dir()) == FOLDERS
    assert read_json(plan.folder / DESCRIPTION)["num_images"] == 40
    assert "CC BY 4.0" in (plan.folder / "LICENSES.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves tars to the collector
@pytest.mark.usefixtures("small_blocks")
def test_tars_are_read_by_webdataset_and_keep_held_out_images_apart(
    saved: SavedSet, plan_of: Callable[[SaveFormat], SavePlan]
) -> None:
    plan, made = plan_of("webdataset"), saved.surrogates
    image_NHWC = whole(made.images)
    save_images(saved, plan, SilentReporter())
    seen = []
    for split, is_heldout in (("train", False), ("heldout", True)):
        tars = sorted(str(path) for path in plan.folder.glob(f"{split}-*.tar"))
        samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode("rgb8"))
        assert len(samples) == (made.is_heldout == is_heldout).sum()
        assert len(tars) == -(-len(samples) // 10)
        for sample in samples:
            row = int(sample["__key__"])
            np.testing.assert_array_equal(sample["webp"], image_NHWC[row])
            assert sample["cls"] == made.class_index[row]
            assert made.is_heldout[row] == is_heldout
            check_record(saved, row, sample["json"])
            asked = sample["json"]["probability"]
            check_probabilities(saved, row, sample["probabilities.npy"], asked)
            seen.append(row)
    assert sorted(seen) == list(range(40))


class StopsAfter(SilentReporter):
    """Interrupts a stage after some calls of its bar."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    @contextlib.contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Iterator[Any]:
        yield self

    def advance(self, count: int = 1, note: str = "") -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("wanted", "num_whole"), [("folder", 18), ("webdataset", 1)])
def test_an_interrupted_save_leaves_whole_files_and_the_next_one_writes_the_rest(
    saved: SavedSet,
    plan_of: Callable[[SaveFormat], SavePlan],
    wanted: SaveFormat,
    num_whole: int,
) -> None:
    plan = plan_of(wanted)
    with pytest.raises(KeyboardInterrupt):
        save_images(saved, plan, StopsAfter(3))
    kept = {name: time for name, time in files(plan.folder).items() if name.endswith(("p", "r"))}
    assert len(kept) == num_whole
    assert "metadata.parquet" not in files(plan.folder)
    (plan.folder / ".train-000009.tar.7.tmp").write_bytes(b"as a kill leaves it")
    save_images(saved, plan_of(wanted), SilentReporter())
    first = files(plan.folder)
    assert kept.items() <= first.items()
    assert not any(name.endswith(".tmp") for name in first)
    assert sum(name.endswith((".webp", ".tar")) for name in first) == (40 if num_whole > 1 else 5)


@pytest.mark.usefixtures("small_blocks")
def test_a_disk_that_takes_no_more_is_told_of_and_what_is_whole_is_kept(
    saved: SavedSet, plan_of: Callable[[SaveFormat], SavePlan]
) -> None:
    plan, limits = plan_of("webdataset"), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # a tar has forty thousand
    try:
        with pytest.raises(EnvironmentLackingError, match=r"cannot write: File too.*train-000000"):
            save_images(saved, plan, SilentReporter())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert set(files(plan.folder)) == {DESCRIPTION, "LICENSES.md"}
    save_images(saved, plan_of("webdataset"), SilentReporter())
    assert len(list(plan.folder.glob("*.tar"))) == 5


class Counted(RowStore[np.uint8]):
    """Notes how many rows are read at once."""

    def __init__(self, store: RowStore[np.uint8]) -> None:
        self.store, self.shape, self.dtype = store, store.shape, store.dtype
        self.counts: list[int] = []

    def rows(self, row_N: Ints) -> Bytes:
        self.counts.append(len(row_N))
        return self.store.rows(row_N)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("wanted", ["folder", "webdataset"])
def test_a_block_of_the_images_is_in_memory_at_a_time(
    saved: SavedSet, plan_of: Callable[[SaveFormat], SavePlan], wanted: SaveFormat
) -> None:
    counted = Counted(saved.surrogates.images)
    surrogates = dataclasses.replace(saved.surrogates, images=counted)
    again = dataclasses.replace(saved, surrogates=surrogates)
    save_images(again, plan_of(wanted), SilentReporter())
    assert (max(counted.counts), sum(counted.counts)) == (6, 40)
    save_images(again, plan_of(wanted), SilentReporter())
    assert sum(counted.counts) == 40  # what is there is not read again


def test_a_folder_with_other_things_is_refused_before_and_after_the_work(
    saved: SavedSet, plan_of: Callable[[SaveFormat], SavePlan], tmp_path: Path
) -> None:
    plan = plan_of("folder")
    save_images(saved, plan, SilentReporter())
    assert plan_of("folder") == plan
    for wanted, key in (("webdataset", "run key"), ("folder", "other")):
        with pytest.raises(RunDirError, match="images of another run or format"):
            plan_saving(plan.folder, wanted, tmp_path / "run", key)
    chosen = dataclasses.replace(saved.surrogates.summary, content="other images of the run")
    surrogates = dataclasses.replace(saved.surrogates, summary=chosen)
    with pytest.raises(RunDirError, match="images of another run or format"):
        save_images(dataclasses.replace(saved, surrogates=surrogates), plan, SilentReporter())
    (plan.folder / DESCRIPTION).unlink()
    with pytest.raises(RunDirError, match=r"holds no saved images.*choose another folder"):
        plan_of("folder")


@pytest.mark.parametrize(
    ("folder", "wanted", "said"),
    [
        ("run/images", None, "images and run are in one folder"),
        (".", None, "images and run are in one folder"),
        ("a file", None, "is a file, not a folder"),
        ("new", "tar", "unknown format 'tar'.*known: folder, webdataset"),
        ("new", "webdatset", "did you mean webdataset"),
        (None, "folder", "no folder to save in.*add --save-images DIR"),
    ],
)
def test_a_request_that_cannot_be_met_is_told_of(
    tmp_path: Path, folder: str | None, wanted: str | None, said: str
) -> None:
    (tmp_path / "a file").write_bytes(b"")
    with pytest.raises(UsageError, match=said):
        plan_saving(tmp_path / folder if folder else None, wanted, tmp_path / "run", "key")


def test_without_pyarrow_the_table_cannot_be_written_and_tars_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as where it is not installed
    with pytest.raises(EnvironmentLackingError, match=r"pip install 'dfkd-edge\[images\]'"):
        plan_saving(tmp_path / "saved", None, tmp_path / "run", "key")
    assert plan_saving(tmp_path / "saved", "webdataset", tmp_path / "run", "key")


def test_the_description_names_classes_in_the_order_of_the_probabilities(
    saved: SavedSet, plan_of: Callable[[SaveFormat], SavePlan]
) -> None:
    plan = plan_of("webdataset")
    save_images(saved, plan, SilentReporter())
    document = json.loads((plan.folder / DESCRIPTION).read_text(encoding="utf-8"))
    assert tuple(document["classes"]) == saved.teacher.classes.names
    assert document["num_heldout"] == saved.surrogates.is_heldout.sum()
