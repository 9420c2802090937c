"""What a weight of each type costs the kernels of this machine, when memory does not limit them."""

from __future__ import annotations

from time import thread_time

import numpy as np

from iqrun import formats, native
from iqrun.formats import Format
from iqrun.native import check, lib, pointer

_N_COLS = 2048
_N_ROWS = 128  # at most 0.5 MB: in the caches of any core
_N_REPEATS = 8


def seconds_per_weight(format_: Format) -> float:
    """Seconds that one thread needs per weight to multiply one token; the best of several runs, some milliseconds."""
    rng = np.random.default_rng(1)
    rows = _rows(format_, rng)
    x = rng.standard_normal(_N_COLS, np.float32)
    y = np.empty(_N_ROWS, np.float32)
    args = (
        *(native.kernels(), format_.id, pointer(rows, "const void *"), _N_ROWS, _N_COLS),
        *(pointer(x, "const float *"), 1, pointer(y, "float *", writable=True)),
    )
    best = float("inf")
    for _ in range(_N_REPEATS):
        start = thread_time()  # so that a busy machine disturbs little
        check(lib.iq_matmul, *args)
        best = min(best, thread_time() - start)
    return best / (_N_ROWS * _N_COLS)


def _rows(format_: Format, rng: np.random.Generator) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Rows as after training: subnormal or infinite scales would be timed instead of the kernel."""
    if not format_.can_encode:
        return np.full((_N_ROWS, format_.row_bytes(_N_COLS)), 0x11, np.uint8)
    weights = rng.standard_normal((8, _N_COLS), np.float32)
    return np.tile(formats.encode(weights, format_, effort="fast", n_threads=1), (_N_ROWS // 8, 1))
