"""One matrix, encoded with error feedback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from iqrun.formats import EFFORTS, Effort, Format
from iqrun.native import check, ffi, lib, pointer
from iqrun.quantizer.feedback.factors import SUPERBLOCK, Factors, Floats, Reals, first_pass, later_pass

Bytes = npt.NDArray[np.uint8]

_ROWS_AT_ONCE = 16  # the native search's lanes
_LATER_PASSES: dict[Effort, int] = {"fast": 0, "normal": 1, "best": 3}


def has_feedback(target: Format) -> bool:
    """Whether the type can be encoded so: its sub-blocks share a scale."""
    return _order(target) is not None


class FeedbackRows:
    """Encodes rows whose input has one second-moment matrix.

    Example:
        >>> rows = FeedbackRows(damped(gram), by_name("IQ3_K"), "normal", n_threads=2)
        >>> packed = rows.encode(weights)
    """

    def __init__(self, h: Reals, target: Format, effort: Effort, n_threads: int) -> None:
        """Factorizes.

        Args:
            h: ``(n, n)``, positive definite (`factors.damped`); n is a multiple of 256.
            target: a type for which `has_feedback`.
            effort: how many scales to try, and how often to choose again: 0, 1 or 3 times.
            n_threads: threads to encode with; the bytes do not depend on it.
        """
        order = _order(target)
        assert order is not None
        columns = (np.arange(0, len(h), SUPERBLOCK)[:, None] + order).ravel()
        if not np.array_equal(columns, np.arange(len(h))):
            h = h[np.ix_(columns, columns)]
        self._target, self._effort, self._n_threads = target, effort, n_threads
        self._first = first_pass(h)
        self._later = later_pass(h) if _LATER_PASSES[effort] else None

    def encode(self, weights: Floats) -> Bytes:
        """Encodes rows, each on its own.

        Args:
            weights: float32 ``(n_rows, n)``, finite, C-contiguous.

        Returns:
            uint8 ``(n_rows, row_bytes)``.

        Raises:
            FormatError: a weight is not finite.
        """
        out = np.zeros((len(weights), self._target.row_bytes(weights.shape[1])), np.uint8)
        with ThreadPoolExecutor(self._n_threads, thread_name_prefix="iqrun-feedback") as pool:
            self._pass(pool, self._first, 0, weights, out)
            for _ in range(_LATER_PASSES[self._effort]):
                assert self._later is not None
                self._pass(pool, self._later, 1, weights, out)
        return out

    def _pass(self, pool: ThreadPoolExecutor, factors: Factors, again: int, weights: Floats, out: Bytes) -> None:
        feedback = pointer(factors.feedback, "const float *")
        curvature = pointer(factors.curvature, "const float *")

        def encode_rows(first: int, last: int) -> None:
            source, data = weights[first:last], out[first:last]
            loss = ffi.new("float[]", last - first)
            check(
                lib.iq_feedback_rows,
                self._target.id,
                pointer(source, "const float *"),
                len(source),
                source.shape[1],
                feedback,
                curvature,
                EFFORTS[self._effort],
                again,
                pointer(data, "void *", writable=True),
                loss,
            )

        _for_ranges(pool, encode_rows, len(weights), self._n_threads)


def _for_ranges(pool: ThreadPoolExecutor, work: Callable[[int, int], None], n_rows: int, n_threads: int) -> None:
    """Deals rows out, a few ranges per thread; waits for all of them, whatever one raises."""
    futures = [pool.submit(work, first, last) for first, last in _ranges(n_rows, 4 * n_threads)]
    errors = [future.exception() for future in futures]
    for error in errors:
        if error is not None:
            raise error


def _ranges(n_rows: int, n_ranges: int) -> Iterator[tuple[int, int]]:
    each = -(-n_rows // (n_ranges * _ROWS_AT_ONCE)) * _ROWS_AT_ONCE
    for first in range(0, n_rows, each):
        yield first, min(first + each, n_rows)


def _order(target: Format) -> npt.NDArray[np.int64] | None:
    """The order in which a superblock's columns are encoded; None if the type cannot be encoded with feedback."""
    order = ffi.new("uint8_t[]", SUPERBLOCK)
    if lib.iq_feedback_order(target.id, order, ffi.NULL) != lib.IQ_OK:
        return None
    return np.frombuffer(ffi.buffer(order), np.uint8).astype(np.int64)
