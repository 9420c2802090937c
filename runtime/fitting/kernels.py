"""What a token costs this machine: its weights, in each type, and its operations; measured with what runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from iqrun import formats, machine, native
from iqrun.benchmark.synthetic import Size, write_synthetic
from iqrun.formats import FORMATS, Format
from iqrun.model import Model
from iqrun.native import check, lib, pointer

Bytes = npt.NDArray[np.uint8]

_N_COLS = 2048
_N_MADE = 32  # rows that are encoded; the rest repeats them
_MATRIX_BYTES = 128 << 20  # larger than the caches of most machines: what is measured is reading and computing
_FREE_PART = 4  # at most a quarter of the memory that is free
_N_PASSES = 3
_SMALL = Size(n_embd=256, n_layer=16, n_head=4, n_head_kv=2, n_ff=256, n_vocab=512, tied=True)  # all of it in caches
_N_STEPS = 16


def bytes_per_second(n_threads: int) -> dict[str, float]:
    """Bytes of weights per second, by type, that so many threads multiply together with one token, from memory."""
    free = machine.available_memory()
    room = np.empty(_MATRIX_BYTES if free is None else min(_MATRIX_BYTES, free // _FREE_PART), np.uint8)
    with ThreadPoolExecutor(n_threads) as pool:

        def together(work: Callable[[int], object]) -> float:
            start = perf_counter()
            list(pool.map(work, range(n_threads)))
            return perf_counter() - start

        return {name: _rate(format_, room, n_threads, together) for name, format_ in FORMATS.items()}


def seconds_per_operation(n_threads: int) -> float:
    """Seconds that an operation takes besides its weights: threads meet, norms and attention are computed.

    It is that of a model so small that its weights take no time.
    """
    with TemporaryDirectory(prefix="iqrun-") as folder:
        path = Path(folder, "small.gguf")
        write_synthetic(path, _SMALL, "Q8_0")
        with Model(path, n_ctx=_N_STEPS, n_threads=n_threads) as model, model.session() as session:
            return min(_steps(session)) / _N_STEPS / len(model.program.ops)


def _steps(session: Any) -> Iterator[float]:
    """Seconds of each pass over a few tokens."""
    for _ in range(_N_PASSES):
        start = perf_counter()
        for token in range(_N_STEPS):
            session.evaluate((token,))
        yield perf_counter() - start
        session.truncate(0)


def _rate(format_: Format, room: Bytes, n_threads: int, together: Callable[[Callable[[int], object]], float]) -> float:
    rows = _fill(room, _made_rows(format_))
    cuts = [len(rows) * index // n_threads for index in range(n_threads + 1)]
    parts = [rows[first:last] for first, last in pairwise(cuts)]
    x, outputs = np.full(_N_COLS, 0.5, np.float32), [np.empty(len(part), np.float32) for part in parts]

    def work(index: int) -> None:
        part, y = parts[index], pointer(outputs[index], "float *", writable=True)
        where = (native.kernels(), format_.id, pointer(part, "const void *"), len(part), _N_COLS)
        check(lib.iq_matmul, *where, pointer(x, "const float *"), 1, y)

    return rows.nbytes / min(together(work) for _ in range(_N_PASSES))


def _made_rows(format_: Format) -> Bytes:
    """Rows as after training: subnormal or infinite scales would be timed instead of the kernel."""
    if not format_.can_encode:
        return np.full((_N_MADE, format_.row_bytes(_N_COLS)), 0x11, np.uint8)
    weights = np.random.default_rng(1).standard_normal((_N_MADE, _N_COLS), np.float32)
    return formats.encode(weights, format_, effort="fast", n_threads=1)


def _fill(room: Bytes, made: Bytes) -> Bytes:
    """The matrix of repeated rows that fills the room."""
    n_repeats = max(1, room.size // made.size)
    matrix = room[: n_repeats * made.size].reshape(n_repeats, *made.shape)
    matrix[:] = made
    return matrix.reshape(-1, made.shape[1])
