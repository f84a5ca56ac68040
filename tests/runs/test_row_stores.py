"""Stores that are read by rows: equal to arrays, whole in no one's memory, plain about damage."""

import json
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dfkd_edge.artifacts import RowStore, save_tensors
from dfkd_edge.errors import ArtifactError
from dfkd_edge.runs.row_stores import ArrayRows, ChosenRows, JoinedRows, stored_tensors
from tests.fixtures.typed import whole

SIDE_PX = 224


def written(folder: Path, num_shards: int = 3, num: int = 5) -> JoinedRows[np.uint8]:
    """Write shards of random pictures, and open them."""
    random = np.random.default_rng(0)
    parts = []
    for number in range(num_shards):
        images = random.integers(0, 256, (num, 4, 4, 3), np.uint8)
        path = folder / f"{number}.safetensors"
        save_tensors(path, {"images": images, "label": np.arange(num)}, {"key": "x"})
        parts.append(stored_tensors(path)["images"])
    return JoinedRows(parts)


def test_rows_come_as_they_are_asked_for_from_files_from_memory_and_from_both(
    tmp_path: Path,
) -> None:
    stored, real = written(tmp_path), np.full((2, 4, 4, 3), 9, np.uint8)
    image_NHWC = np.concatenate([whole(stored)[::2], real, real])
    store = JoinedRows([ChosenRows(stored, np.arange(0, 15, 2)), *[ArrayRows(real)] * 2])
    assert (store.shape, store.nbytes) == ((12, 4, 4, 3), 12 * 48)
    row_N = np.array([11, 0, 7, 7, 3, 8, 1])
    np.testing.assert_array_equal(store.rows(row_N), image_NHWC[row_N])
    assert store.rows(np.zeros(0, np.int64)).shape == (0, 4, 4, 3)
    assert len({image.tobytes() for image in whole(stored)}) == 15


def test_a_table_of_every_type_of_a_shard_comes_back(tmp_path: Path) -> None:
    tables = {
        "flag": np.array([True, False, True]),
        "half": np.ones((3, 2), np.float16),
        "number": np.arange(3),
        "float": np.eye(3, dtype=np.float32),
    }
    save_tensors(tmp_path / "x", tables)
    for name, store in stored_tensors(tmp_path / "x").items():
        assert store.whole().dtype == tables[name].dtype
        np.testing.assert_array_equal(store.whole(), tables[name])
        np.testing.assert_array_equal(store.rows(np.array([2, 0])), tables[name][[2, 0]])


def test_threads_read_at_once_and_each_gets_its_own_rows(tmp_path: Path) -> None:
    store = written(tmp_path, num_shards=8)
    image_NHWC = whole(store)
    draws = [np.random.default_rng(seed).integers(0, len(store), 64) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        for row_N, read_NHWC in zip(draws, pool.map(store.rows, draws), strict=True):
            np.testing.assert_array_equal(read_NHWC, image_NHWC[row_N])


def sparse(path: Path, num: int) -> RowStore[np.uint8]:
    """Open a shard of `num` pictures that takes no space: its content is a hole."""
    shape, size = (num, SIDE_PX, SIDE_PX, 3), num * SIDE_PX**2 * 3
    entry = {"dtype": "U8", "shape": shape, "data_offsets": [0, size]}
    header = json.dumps({"images": entry}).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    return stored_tensors(path)["images"]


def test_rows_of_thirty_gigabytes_take_the_memory_of_the_rows(tmp_path: Path) -> None:
    store = JoinedRows([sparse(tmp_path / f"{number}", 50_000) for number in range(4)])
    assert store.nbytes > 30e9
    row_N = np.random.default_rng(0).integers(0, len(store), 64)
    tracemalloc.start()
    try:
        read_NHWC = store.rows(row_N)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2.2 * read_NHWC.nbytes  # the rows, and those of one part on their way


@pytest.mark.parametrize("fault", ["missing", "cut", "longer", "no header", "huge header", "empty"])
def test_a_damaged_shard_is_named_when_it_is_opened(tmp_path: Path, fault: str) -> None:
    written(tmp_path, 1)
    path = tmp_path / "0.safetensors"
    content = path.read_bytes()
    damaged = {
        "cut": content[:-1],
        "longer": content + b"x",
        "no header": content[:8] + b"x" + content[9:],
        "huge header": b"\xff" * 8 + content[8:],
        "empty": b"",
    }
    path.unlink()
    if fault in damaged:
        path.write_bytes(damaged[fault])
    with pytest.raises(ArtifactError, match=r"damaged \(.*0\.safetensors\): run the same"):
        stored_tensors(path)


@pytest.mark.parametrize("is_cut", [True, False])
def test_a_shard_that_is_lost_while_it_is_used_is_named(tmp_path: Path, is_cut: bool) -> None:
    store = written(tmp_path)
    path = tmp_path / "1.safetensors"
    content = path.read_bytes()
    path.unlink()
    if is_cut:
        path.write_bytes(content[:-60])
    assert len(store.rows(np.array([0, 14]))) == 2  # of its neighbours
    with pytest.raises(ArtifactError, match=r"missing or damaged \(.*1\.safetensors\)"):
        store.rows(np.array([0, 9]))
