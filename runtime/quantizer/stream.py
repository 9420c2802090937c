"""The tensors as a stream of pieces: read, encode and measure in threads, hand on in file order.

A piece is some rows, the same however many threads there are, so the file's bytes and the measured errors do not
depend on them. At most two pieces per thread are in memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from iqrun import formats
from iqrun.errors import FormatError, QuantizeError
from iqrun.formats import Effort, Format
from iqrun.gguf import GGUFFile
from iqrun.quantizer.gain import unbias
from iqrun.quantizer.recipes import Choice

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_PIECE_WEIGHTS = 1 << 18  # 1 MiB as float32: large enough to hide a piece's cost, small enough to bound memory
_F16_MAX = 65504.0  # below it every type holds the largest weight of a row, more or less exactly


@dataclass(frozen=True)
class Job:
    """A tensor to convert; `importance` is float32 (n_matrices, n_cols), or None."""

    choice: Choice
    importance: Floats | None


@dataclass(frozen=True)
class Piece:
    """Rows ``first`` to ``last`` (exclusive) of a job, all with the same importance."""

    job: Job
    first: int
    last: int

    @property
    def n_weights(self) -> int:
        """Number of weights."""
        return (self.last - self.first) * self.job.choice.tensor.n_cols

    @property
    def is_end(self) -> bool:
        """Whether the tensor ends with it."""
        return self.last == self.job.choice.tensor.n_rows

    def importance(self) -> Floats | None:
        """The importance of its columns, float32 (n_cols,)."""
        if self.job.importance is None:
            return None
        rows_each = self.job.choice.tensor.n_rows // len(self.job.importance)
        values: Floats = self.job.importance[self.first // rows_each]
        return values


@dataclass(frozen=True)
class Encoded:
    """A piece as stored; sums over its weights of w (x - y)^2 and w x^2."""

    piece: Piece
    data: Bytes
    error: float
    norm: float


def encode_all(source: GGUFFile, jobs: Sequence[Job], effort: Effort, n_threads: int) -> Generator[Encoded, None, None]:
    """Converts every tensor, piece by piece, in order.

    Raises:
        QuantizeError: a weight is NaN or infinite, or cannot be stored in the new type.
    """
    pieces = (piece for job in jobs for piece in _cut(job))
    with ThreadPoolExecutor(n_threads, thread_name_prefix="iqrun-quantize") as pool:
        try:
            yield from _in_order(pool, source, pieces, effort, 2 * n_threads)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _in_order(
    pool: ThreadPoolExecutor, source: GGUFFile, pieces: Iterable[Piece], effort: Effort, n_pending: int
) -> Iterator[Encoded]:
    pending: deque[Future[Encoded]] = deque()
    for piece in pieces:
        pending.append(pool.submit(_encode, source, piece, effort))
        if len(pending) == n_pending:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _cut(job: Job) -> Iterator[Piece]:
    tensor = job.choice.tensor
    n_matrices = 1 if job.importance is None else len(job.importance)
    rows_each = tensor.n_rows // n_matrices
    step = max(1, _PIECE_WEIGHTS // tensor.n_cols)
    for start in range(0, tensor.n_rows, rows_each):
        for first in range(start, start + rows_each, step):
            yield Piece(job, first, min(first + step, start + rows_each))


def _encode(source: GGUFFile, piece: Piece, effort: Effort) -> Encoded:
    tensor, target = piece.job.choice.tensor, piece.job.choice.target
    rows = source.tensor_rows(tensor.name)[piece.first : piece.last]
    try:
        if target is None or target is tensor.format:
            return _copied(source, piece, rows)
        assert tensor.format is not None
        weights = formats.decode(rows, tensor.format, tensor.n_cols, n_threads=1)
        _check_finite(source, piece, weights)
        data = formats.encode(weights, target, piece.importance(), effort, n_threads=1)
        decoded = formats.decode(data, target, tensor.n_cols, n_threads=1)
        if unbias(data, target, weights, decoded, piece.importance()):
            decoded = formats.decode(data, target, tensor.n_cols, n_threads=1)
    except FormatError as reason:
        raise QuantizeError(f"{source.path}: tensor {tensor.name!r}: {reason}") from reason
    finally:
        source.release_rows(tensor.name, piece.first, piece.last)
    if _is_clipped(weights, decoded):
        raise QuantizeError(_too_large(source, piece, target))
    return Encoded(piece, data, *_measure(weights, decoded, piece.importance()))


def _copied(source: GGUFFile, piece: Piece, rows: Bytes) -> Encoded:
    """The rows as they are; floats are looked at, because one NaN spoils a model."""
    tensor = piece.job.choice.tensor
    if tensor.format is not None and tensor.format.block_weights == 1:
        _check_finite(source, piece, formats.decode(rows, tensor.format, tensor.n_cols, n_threads=1))
    return Encoded(piece, rows.copy(), 0.0, 0.0)


def _check_finite(source: GGUFFile, piece: Piece, weights: Floats) -> None:
    finite = np.isfinite(weights)
    if finite.all():
        return
    row, column = np.argwhere(~finite)[0]
    name, value = piece.job.choice.tensor.name, weights[row, column]
    where = f"row {piece.first + row}, column {column}"
    raise QuantizeError(f"{source.path}: tensor {name!r} holds {value} at {where}: the model is damaged; get it again")


def _is_clipped(weights: Floats, decoded: Floats) -> bool:
    """Whether the largest weights are beyond what the new type can hold."""
    if not np.isfinite(decoded).all():
        return True
    peak = max(float(weights.max()), -float(weights.min()))
    return peak > _F16_MAX and max(float(decoded.max()), -float(decoded.min())) < 0.75 * peak


def _measure(weights: Floats, decoded: Floats, importance: Floats | None) -> tuple[float, float]:
    """Sums of w (x - y)^2 and w x^2, in double precision."""
    error = np.square(np.subtract(decoded, weights), dtype=np.float64).sum(axis=0)
    norm = np.square(weights, dtype=np.float64).sum(axis=0)
    if importance is None:
        return float(error.sum()), float(norm.sum())
    return float(error @ importance), float(norm @ importance)


def _too_large(source: GGUFFile, piece: Piece, target: Format) -> str:
    name = piece.job.choice.tensor.name
    return (
        f"{source.path}: tensor {name!r} has weights too large for {target.name}; "
        "store it as F32 (keep_f32, --keep-f32) or BF16"
    )
