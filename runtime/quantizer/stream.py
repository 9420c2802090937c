"""The tensors as a stream of pieces: read, encode and measure in threads, hand on in file order.

A piece is some rows, the same however many threads there are, so the file's bytes and the measured errors do not
depend on them. Pieces are small, and two per thread are in memory at most. A job with an encoder of its own comes as
whole matrices (or wide bands of them), one at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from iqrun import formats
from iqrun.errors import FormatError, QuantizeError
from iqrun.formats import Effort, Format
from iqrun.gguf import GGUFFile
from iqrun.quantizer.jobs import Bytes, Floats, Job, MatrixEncoder, Piece
from iqrun.quantizer.rows import encode_rows, read_weights, squared_error

_PIECE_WEIGHTS = 1 << 18  # 1 MiB as float32: large enough to hide a piece's cost, small enough to bound memory
_BAND_WEIGHTS = 1 << 25  # 128 MiB as float32: most matrices are smaller
_F16_MAX = 65504.0  # below it every type holds the largest weight of a row, more or less exactly


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
            yield from _in_order(pool, source, pieces, effort, 2 * n_threads * _PIECE_WEIGHTS)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _in_order(
    pool: ThreadPoolExecutor, source: GGUFFile, pieces: Iterable[Piece], effort: Effort, max_weights: int
) -> Iterator[Encoded]:
    """Encodes ahead until the pieces in memory hold `max_weights`."""
    pending: deque[Future[Encoded]] = deque()
    n_weights = 0
    for piece in pieces:
        while pending and n_weights + piece.n_weights > max_weights:
            n_weights -= (encoded := pending.popleft().result()).piece.n_weights
            yield encoded
        pending.append(pool.submit(_encode, source, piece, effort))
        n_weights += piece.n_weights
    while pending:
        yield pending.popleft().result()


def _cut(job: Job) -> Iterator[Piece]:
    tensor = job.choice.tensor
    rows_each = tensor.n_rows // job.n_matrices
    for start in range(0, tensor.n_rows, rows_each):
        for first, last in _ranges(start, start + rows_each, tensor.n_cols, _piece_weights(job)):
            yield Piece(job, first, last)


def _piece_weights(job: Job) -> int:
    return _PIECE_WEIGHTS if job.encoder is None else _BAND_WEIGHTS


def _ranges(start: int, end: int, n_cols: int, n_weights: int) -> Iterator[tuple[int, int]]:
    """Rows in ranges of at most `n_weights` weights, or one row."""
    step = max(1, n_weights // n_cols)
    for first in range(start, end, step):
        yield first, min(first + step, end)


def _encode(source: GGUFFile, piece: Piece, effort: Effort) -> Encoded:
    tensor, target = piece.job.choice.tensor, piece.job.choice.target
    try:
        if target is None or target is tensor.format:
            return _copied(source, piece)
        if piece.job.encoder is not None:
            return _encode_band(source, piece, target, piece.job.encoder)
        weights = read_weights(source, tensor, piece.first, piece.last)
        data, decoded = encode_rows(weights, target, piece.importance(), effort)
    except FormatError as reason:
        raise QuantizeError(f"{source.path}: tensor {tensor.name!r}: {reason}") from reason
    return Encoded(piece, data, *_compare(source, piece, target, weights, decoded))


def _encode_band(source: GGUFFile, piece: Piece, target: Format, encoder: MatrixEncoder) -> Encoded:
    """A band through its own encoder; it is read twice, so that only one copy is in memory."""
    tensor, n_rows = piece.job.choice.tensor, piece.last - piece.first
    ranges = list(_ranges(0, n_rows, tensor.n_cols, _PIECE_WEIGHTS))
    weights = np.empty((n_rows, tensor.n_cols), np.float32)
    for first, last in ranges:
        weights[first:last] = read_weights(source, tensor, piece.first + first, piece.first + last)
    data = encoder(tensor.name, piece.matrix, piece.first_in_matrix, weights, target, piece.importance())
    del weights
    error = norm = 0.0
    for first, last in ranges:
        original = read_weights(source, tensor, piece.first + first, piece.first + last)
        decoded = formats.decode(data[first:last], target, tensor.n_cols, n_threads=1)
        more = _compare(source, piece, target, original, decoded)
        error, norm = error + more[0], norm + more[1]
    return Encoded(piece, data, error, norm)


def _copied(source: GGUFFile, piece: Piece) -> Encoded:
    """The rows as they are; floats are looked at, because one NaN spoils a model."""
    tensor = piece.job.choice.tensor
    if tensor.format is not None and tensor.format.block_weights == 1:
        read_weights(source, tensor, piece.first, piece.last)
    rows = source.tensor_rows(tensor.name)[piece.first : piece.last].copy()
    source.release_rows(tensor.name, piece.first, piece.last)
    return Encoded(piece, rows, 0.0, 0.0)


def _compare(source: GGUFFile, piece: Piece, target: Format, weights: Floats, decoded: Floats) -> tuple[float, float]:
    """The sums of `Encoded` over some rows.

    Raises:
        QuantizeError: the new type cannot hold the weights.
    """
    if _is_clipped(weights, decoded):
        raise QuantizeError(_too_large(source, piece, target))
    return squared_error(weights, decoded, piece.importance())


def _is_clipped(weights: Floats, decoded: Floats) -> bool:
    """Whether the largest weights are beyond what the new type can hold."""
    if not np.isfinite(decoded).all():
        return True
    peak = max(float(weights.max()), -float(weights.min()))
    return peak > _F16_MAX and max(float(decoded.max()), -float(decoded.min())) < 0.75 * peak


def _too_large(source: GGUFFile, piece: Piece, target: Format) -> str:
    name = piece.job.choice.tensor.name
    return (
        f"{source.path}: tensor {name!r} has weights too large for {target.name}; "
        "store it as F32 (keep_f32, --keep-f32) or BF16"
    )
