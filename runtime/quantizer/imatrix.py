"""Importance matrices: how strongly each input column of a matrix is driven by typical text.

Two file formats, told apart by their first bytes:

- GGUF (llama.cpp): tensors ``NAME.in_sum2`` (n_cols, n_matrices), the sums of squared activations, and
  ``NAME.counts`` (1, n_matrices), how many were summed;
- the older ``.dat``: i32 n_entries; per entry i32 length, name, i32 n_calls, i32 n_values, f32 values;
  then, optionally, i32 chunks, i32 length, name of the text. The values are sums over calls (chunks of text) of the
  mean squared activation in each; how many tokens a call had is not said.

n_matrices is 1, or the number of experts of a mixture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike, fsdecode

import numpy as np
import numpy.typing as npt

from iqrun.errors import GGUFError, QuantizeError
from iqrun.gguf import GGUFFile, TensorInfo, keys
from iqrun.gguf.cursor import Cursor
from iqrun.gguf.mapping import MappedFile

Floats = npt.NDArray[np.float32]

SUMS, COUNTS = ".in_sum2", ".counts"
_MIN_ENTRY_BYTES = 4 + 1 + 4 + 4 + 4
_MAX_NAME_BYTES = 1024


@dataclass(frozen=True)
class Imatrix:
    """An importance matrix file.

    Attributes:
        path: where it was read.
        entries: per tensor name the mean squared activation, float32, flat: n_matrices x n_cols.
        counts: per tensor name how much was averaged, float32 (n_matrices,): tokens, or in a .dat chunks of text.
        datasets: names of the texts it was computed on, if the file says so.
        n_chunks: chunks of text, if the file says so, else 0.
        is_legacy: whether it is a .dat, whose counts are chunks.
    """

    path: str
    entries: Mapping[str, Floats]
    counts: Mapping[str, Floats]
    datasets: tuple[str, ...]
    n_chunks: int
    is_legacy: bool

    @property
    def dataset(self) -> str:
        """Name of the (first) text, or nothing."""
        return next(iter(self.datasets), "")

    def of(self, tensor: TensorInfo, name: str | None = None) -> Floats | None:
        """The importance of a tensor's columns, float32 (n_matrices, n_cols), or None if the file has none.

        `name`: the entry to use, if it is not called like the tensor.

        Raises:
            QuantizeError: the entry's length does not fit the tensor.
        """
        entry = tensor.name if name is None else name
        values = self.entries.get(entry)
        if values is None:
            return None
        n_matrices = 1 if len(tensor.shape) < 3 else tensor.shape[2]
        if values.size != n_matrices * tensor.n_cols:
            needed = n_matrices * tensor.n_cols
            raise self.error(entry, f"has {values.size} values, but the tensor needs {needed}")
        return values.reshape(n_matrices, tensor.n_cols)

    def error(self, name: str, what: str) -> QuantizeError:
        """An error about one entry."""
        return _error(self.path, f"the entry of {name!r} {what}")


def read_imatrix(path: str | PathLike[str]) -> Imatrix:
    """Reads an importance matrix, GGUF or legacy .dat, and checks every value.

    Raises:
        QuantizeError: the file cannot be read, is damaged, or holds a value that is NaN, infinite or negative.
    """
    name = fsdecode(path)
    try:
        file = MappedFile(name)
        try:
            is_gguf = file.data[:4].tobytes() == keys.MAGIC
            matrix = _read_gguf(name) if is_gguf else _read_dat(Cursor(file.data, name))
            file.check_unchanged()
        finally:
            file.close()
    except GGUFError as error:
        raise QuantizeError(f"the importance matrix cannot be read: {error}") from error
    if not matrix.entries:
        raise _error(name, "it has no entries")
    for key, values in matrix.entries.items():
        bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
        if bad.size:
            raise matrix.error(key, f"holds {values[bad[0]]} at column {bad[0]}; values must be finite and >= 0")
    return matrix


def _read_gguf(path: str) -> Imatrix:
    with GGUFFile(path) as file:
        names = [name[: -len(SUMS)] for name in file.tensors if name.endswith(SUMS)]
        counts = {name: _counts(file, path, name) for name in names}
        entries = {name: _mean(file, path, name, counts[name]) for name in names}
        datasets = tuple(file.metadata.get_array(keys.IMATRIX_DATASETS, "str", ()))
        n_chunks = file.metadata.get_uint(keys.IMATRIX_CHUNK_COUNT, 0)
        return Imatrix(path, entries, counts, datasets, n_chunks, is_legacy=False)


def _counts(file: GGUFFile, path: str, name: str) -> Floats:
    sums, counts = _float_rows(file, path, name + SUMS), _float_rows(file, path, name + COUNTS).reshape(-1)
    if counts.size != len(sums):
        raise _error(path, f"the entry of {name!r} has {len(sums)} sums but {counts.size} counts")
    if not np.all(np.isfinite(counts)) or np.any(counts < 0):
        raise _error(path, f"the entry of {name!r} has a count that is negative or not finite")
    return counts


def _mean(file: GGUFFile, path: str, name: str, counts: Floats) -> Floats:
    """Sums divided by counts; a matrix that was never used gets zeros, which say nothing."""
    sums = _float_rows(file, path, name + SUMS)
    return (sums / np.maximum(counts.reshape(-1, 1), 1)).astype(np.float32).reshape(-1)


def _float_rows(file: GGUFFile, path: str, name: str) -> Floats:
    info = file.tensors.get(name)
    if info is None or info.type.name != "F32":
        raise _error(path, f"the tensor {name!r} is missing or not F32")
    rows: Floats = file.tensor_bytes(name).copy().view(np.float32).reshape(info.n_rows, info.n_cols)
    return rows


def _read_dat(cursor: Cursor) -> Imatrix:
    n_entries = cursor.u32("the entry count")
    if not 1 <= n_entries <= cursor.remaining // _MIN_ENTRY_BYTES:
        raise cursor.fail(f"not an importance matrix: {n_entries} entries do not fit the file", offset=0)
    entries: dict[str, Floats] = {}
    counts: dict[str, Floats] = {}
    for _ in range(n_entries):
        name = _dat_string(cursor, "an entry's name", 1)
        if name in entries:
            raise cursor.fail(f"the entry of {name!r} occurs twice", key=name)
        entries[name], counts[name] = _dat_values(cursor, name)
    n_chunks = cursor.u32("the chunk count") if cursor.remaining >= 4 else 0
    dataset = _dat_string(cursor, "the name of the text", 0) if cursor.remaining >= 4 else ""
    return Imatrix(cursor.path, entries, counts, (dataset,) if dataset else (), n_chunks, is_legacy=True)


def _dat_values(cursor: Cursor, name: str) -> tuple[Floats, Floats]:
    """Mean values of an entry, and the number of calls."""
    n_calls = cursor.u32(f"the call count of {name!r}")
    n_values = cursor.u32(f"the value count of {name!r}")
    if n_values < 1:
        raise cursor.fail(f"the entry of {name!r} has no values", key=name)
    start = cursor.skip(4 * n_values, f"the values of {name!r}")
    values: Floats = cursor.data[start : cursor.offset].copy().view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        values /= np.float32(max(n_calls, 1))
    return values, np.array([n_calls], np.float32)


def _dat_string(cursor: Cursor, what: str, min_bytes: int) -> str:
    n_bytes = cursor.u32(f"the length of {what}")
    if not min_bytes <= n_bytes <= _MAX_NAME_BYTES:
        raise cursor.fail(f"{what} is {n_bytes} bytes long: not an importance matrix, or a damaged one")
    start = cursor.skip(n_bytes, what)
    return cursor.data[start : cursor.offset].tobytes().decode("utf-8", "replace")


def _error(path: str, what: str) -> QuantizeError:
    return QuantizeError(f"{path}: {what}; compute the importance matrix again")
