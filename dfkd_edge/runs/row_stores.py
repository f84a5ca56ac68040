"""Tables that are read by rows: in memory, in the shards of a run, and several behind one another.

Shards are read with plain reads. Pages of a mapped file would count as memory of the process, and
one that is cut short while it is mapped would kill it.

Shape suffixes: N rows.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dfkd_edge.artifacts import Ints, RowStore, Scalar, unreadable
from dfkd_edge.runtime.safe_files import reading

DTYPES = {"U8": np.uint8, "I64": np.int64, "F16": np.float16, "F32": np.float32, "BOOL": np.bool_}
"""What arrays of ours are called in a safetensors file; all of them little-endian."""
UNREADABLE = (LookupError, TypeError, AttributeError, RecursionError, MemoryError)
"""What a header that is JSON, and none of a safetensors file, leads to."""
MAX_HEADER_BYTES = 100_000_000  # As in the safetensors library: a damaged length must not be read


def blocks(row_N: Ints, size: int) -> Iterator[Ints]:
    """Cut rows into blocks that are small enough to be read at once."""
    return (row_N[start : start + size] for start in range(0, len(row_N), size))


class ArrayRows(RowStore[Scalar]):
    """Rows of an array in memory."""

    def __init__(self, array: NDArray[Scalar]) -> None:
        self._array, self.shape, self.dtype = array, array.shape, array.dtype

    def rows(self, row_N: Ints) -> NDArray[Scalar]:
        """Copy rows."""
        return self._array[row_N]


class StoredRows(RowStore[Scalar]):
    """Rows of a tensor in a safetensors file, which is open only while rows are read."""

    def __init__(
        self, path: Path, dtype: np.dtype[Scalar], shape: tuple[int, ...], offset: int
    ) -> None:
        """Name the place of a tensor; `offset` is that of its first byte in the file."""
        self._path, self._offset, self.shape, self.dtype = path, offset, shape, dtype
        self._row_bytes = math.prod(shape[1:]) * dtype.itemsize

    def rows(self, row_N: Ints) -> NDArray[Scalar]:
        """Read rows in the order in which they lie in the file."""
        assert not len(row_N) or 0 <= row_N.min() <= row_N.max() < len(self)
        read = np.empty((len(row_N), *self.shape[1:]), self.dtype)
        try:
            with self._path.open("rb") as file:
                for place in np.argsort(row_N, kind="stable"):
                    file.seek(self._offset + int(row_N[place]) * self._row_bytes)
                    # a slice: of a table with one axis a row alone would be no array
                    if file.readinto(read[place : place + 1].data.cast("B")) != self._row_bytes:
                        raise unreadable(self._path)
        except OSError as error:
            raise unreadable(self._path) from error
        return read

    def whole(self) -> NDArray[Scalar]:
        """Read a small table at once."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                read = np.frombuffer(file.read(self.nbytes), self.dtype)
            return read.reshape(self.shape)
        except (OSError, ValueError) as error:
            raise unreadable(self._path) from error


class JoinedRows(RowStore[Scalar]):
    """Stores whose rows are alike, one behind the other."""

    def __init__(self, parts: Sequence[RowStore[Scalar]]) -> None:
        self._parts = parts
        self._start = np.cumsum([0, *map(len, parts)])
        self.shape = (int(self._start[-1]), *parts[0].shape[1:])
        self.dtype = parts[0].dtype

    def rows(self, row_N: Ints) -> NDArray[Scalar]:
        """Read the rows of each part together."""
        read = np.empty((len(row_N), *self.shape[1:]), self.dtype)
        part_N = np.searchsorted(self._start, row_N, "right") - 1
        order_N = np.argsort(part_N, kind="stable")
        borders = np.flatnonzero(np.diff(part_N[order_N])) + 1
        for places in np.split(order_N, borders) if len(row_N) else ():
            number = part_N[places[0]]
            read[places] = self._parts[number].rows(row_N[places] - self._start[number])
        return read


class ChosenRows(RowStore[Scalar]):
    """Some rows of another store."""

    def __init__(self, store: RowStore[Scalar], row_N: Ints) -> None:
        self._store, self._row_N = store, row_N
        self.shape, self.dtype = (len(row_N), *store.shape[1:]), store.dtype

    def rows(self, row_N: Ints) -> NDArray[Scalar]:
        """Read rows, numbered among the chosen ones."""
        return self._store.rows(self._row_N[row_N])


def stored_tensors(path: Path) -> dict[str, StoredRows[Any]]:
    """Find the tensors of a safetensors file by its header alone.

    Raises:
        ArtifactError: the file is missing, cut short or none of ours.
    """
    try:
        with reading(path) as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(length, MAX_HEADER_BYTES)))
        header.pop("__metadata__", None)
        stores = {name: _stored(path, 8 + length, entry) for name, entry in header.items()}
        ends = [entry["data_offsets"][1] for entry in header.values()]
        if path.stat().st_size != 8 + length + max(ends, default=0):
            raise unreadable(path)
        return stores
    except (*UNREADABLE, OSError, ValueError) as error:
        raise unreadable(path) from error


def _stored(path: Path, first: int, entry: Mapping[str, Any]) -> StoredRows[Any]:
    """Place a tensor by its entry in the header, once it is one that a file can hold."""
    dtype, shape = np.dtype(DTYPES[entry["dtype"]]), tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    is_whole = all(type(number) is int and number >= 0 for number in (*shape, begin, end))
    if not is_whole or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError("tensor is not where its header says")
    return StoredRows(path, dtype, shape, first + begin)
