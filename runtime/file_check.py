"""Reads every weight of a file: are all of them numbers, and are they those that were written?

A NaN or an infinity among weights or scales, from a damaged disk, a cut download or a failed conversion, turns every
answer into nonsense without an error. Memory stays bounded whatever the tensors' sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from iqrun import formats
from iqrun.gguf import GGUFFile, TensorInfo, hashes
from iqrun.gguf.metadata import Bytes

_PIECE_WEIGHTS = 1 << 20

Progress = Callable[[int, int, str], object]


@dataclass(frozen=True, slots=True)
class TensorCheck:
    """What was found in one tensor.

    Attributes:
        info: the tensor.
        n_nan, n_inf: weights that are not numbers, or not finite; None where iqrun cannot decode the type.
        first: row and column of the first of them.
        hash_agrees: whether the stored bytes have the hash that the file gives; None if it gives none.
    """

    info: TensorInfo
    n_nan: int | None
    n_inf: int | None
    first: tuple[int, int] | None
    hash_agrees: bool | None

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        return self.first is None and self.hash_agrees is not False


def check_tensors(file: GGUFFile, progress: Progress | None = None) -> Iterator[TensorCheck]:
    """Reads and checks all tensors, in file order.

    Args:
        file: an open file.
        progress: called as ``progress(bytes_done, bytes_in_all, tensor_name)``.

    Raises:
        GGUFError: the stored hashes are malformed, or another program changed the file meanwhile.
    """
    wanted = hashes.stored(file)
    total, done = sum(info.n_bytes for info in file.tensors.values()), 0
    for name, info in file.tensors.items():
        agrees = hashes.digest(file, name) == wanted[name] if name in wanted else None
        n_nan, n_inf, first = _count_bad(file, info)
        file.check_unchanged()
        done += info.n_bytes
        if progress is not None:
            progress(done, total, name)
        yield TensorCheck(info, n_nan, n_inf, first, agrees)


def _count_bad(file: GGUFFile, info: TensorInfo) -> tuple[int | None, int | None, tuple[int, int] | None]:
    """NaNs, infinities, and row and column of the first of either."""
    if info.format is None:
        return None, None, None
    n_nan = n_inf = 0
    first: tuple[int, int] | None = None
    for start, rows, n_cols in _pieces(file, info):
        weights = formats.decode(rows, info.format, n_cols).reshape(-1)
        bad = ~np.isfinite(weights)
        if not bad.any():
            continue
        n_nan_here = int(np.isnan(weights).sum())
        n_nan, n_inf = n_nan + n_nan_here, n_inf + int(bad.sum()) - n_nan_here
        first = first or divmod(start + int(bad.argmax()), info.n_cols)
    return n_nan, n_inf, first


def _pieces(file: GGUFFile, info: TensorInfo) -> Iterator[tuple[int, Bytes, int]]:
    """The tensor in pieces of bounded size: index of the first weight, rows to decode, weights per row."""
    rows = file.tensor_rows(info.name)
    step = max(1, _PIECE_WEIGHTS // info.n_cols)
    for first in range(0, info.n_rows, step):
        last = min(first + step, info.n_rows)
        if info.n_cols <= _PIECE_WEIGHTS:
            yield first * info.n_cols, rows[first:last], info.n_cols
        else:
            yield from _row_pieces(info, rows[first], first)
        file.release_rows(info.name, first, last)


def _row_pieces(info: TensorInfo, row: Bytes, index: int) -> Iterator[tuple[int, Bytes, int]]:
    """A row too long to be decoded at once, as several shorter ones with the same row_meta."""
    meta, kind = info.type.row_meta_bytes, info.type
    for first in range(0, info.n_cols, _PIECE_WEIGHTS):
        n_cols = min(_PIECE_WEIGHTS, info.n_cols - first)
        start = meta + first // kind.block_weights * kind.block_bytes
        blocks = row[start : start + n_cols // kind.block_weights * kind.block_bytes]
        yield index * info.n_cols + first, np.concatenate([row[:meta], blocks])[None], n_cols
