"""What a token costs this machine: its weights, in each type, and its operations; measured with what runs it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Event
from time import perf_counter

import numpy as np
import numpy.typing as npt

from iqrun import formats, machine
from iqrun.benchmark.synthetic import Size, write_synthetic
from iqrun.engine.lowering import NativeProgram
from iqrun.engine.session import Session
from iqrun.fitting.sources import imagine
from iqrun.formats import FORMATS, Format
from iqrun.gguf import GGUFPlan, ValueType, keys
from iqrun.model import Model
from iqrun.program import Program

Bytes = npt.NDArray[np.uint8]

_N_COLS = 4096
_N_MADE = 32  # rows that are encoded; the rest repeats them
_MATRIX_BYTES = 128 << 20  # larger than the caches of most machines: what is measured is reading and computing
_FREE_PART = 4  # at most a quarter of the memory that is free
_SECONDS = 3.0  # for all types together: memory is not equally fast at all times
_N_PASSES = 3  # of a type in a row
_SMALL = Size(n_embd=256, n_layer=16, n_head=4, n_head_kv=2, n_ff=256, n_vocab=512, tied=True)  # all of it in caches
_N_STEPS = 48


def bytes_per_second(n_threads: int) -> dict[str, float]:
    """Bytes of weights per second, by type, that so many threads multiply with one token, from memory.

    The engine multiplies them. The types take turns until the time is up, at least once; of each the median counts.
    """
    room = _room()
    matrices = {name: _Matrix(format_, room) for name, format_ in FORMATS.items()}
    rates: dict[str, list[float]] = {name: [] for name in FORMATS}
    end = perf_counter() + _SECONDS
    while not all(rates.values()) or perf_counter() < end:
        for name, matrix in matrices.items():
            matrix.fill()
            rates[name] += matrix.rates(n_threads)
    return {name: median(found) for name, found in rates.items()}


def seconds_per_operation(n_threads: int) -> float:
    """Seconds that an operation takes besides its weights: threads meet, norms and attention are computed.

    It is that of a model so small that its weights take no time.
    """
    with TemporaryDirectory(prefix="iqrun-") as folder:
        path = Path(folder, "small.gguf")
        write_synthetic(path, _SMALL, "Q8_0")
        with Model(path, n_ctx=_N_STEPS, n_threads=n_threads) as model, model.session() as session:
            return median(_steps(session, _N_STEPS)) / len(model.program.ops)


@contextmanager
def computing(n_threads: int) -> Iterator[list[float]]:
    """Keeps so many threads at work, as a step that waits for nothing does; yields the rates of the work so far."""
    stop = Event()
    rates: list[float] = []

    def compute() -> None:
        while not stop.is_set():
            rates.extend(matrix.rates(n_threads))

    matrix = _Matrix(FORMATS["IQ4_K"], _room())
    matrix.fill()
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(compute)
        try:
            yield rates
        finally:
            stop.set()
            work.result()


class _Matrix:
    """A matrix of repeated rows that fills a room, which others may have used meanwhile, and its product."""

    def __init__(self, format_: Format, room: Bytes) -> None:
        self._made = _made_rows(format_)
        n_repeats = max(1, room.size // self._made.size)
        self._data = room[: n_repeats * self._made.size].reshape(-1, self._made.shape[1])
        self._program = NativeProgram(_product(format_, self._data))

    def fill(self) -> None:
        """Takes the room."""
        self._data.reshape(-1, *self._made.shape)[:] = self._made

    def rates(self, n_threads: int) -> list[float]:
        """Bytes per second in each of a few passes."""
        with Session(self._program, n_ctx=_N_PASSES, n_threads=n_threads) as session:
            return [self._data.nbytes / seconds for seconds in _steps(session, _N_PASSES)]


def _room() -> Bytes:
    free = machine.available_memory()
    return np.empty(_MATRIX_BYTES if free is None else min(_MATRIX_BYTES, free // _FREE_PART), np.uint8)


def _product(format_: Format, matrix: Bytes) -> Program:
    """A program that is nothing but the product of a matrix."""
    plan = GGUFPlan()
    plan.set(keys.ARCHITECTURE, "product", ValueType.STRING)
    plan.add_tensor("x", (_N_COLS, 1), FORMATS["F32"].id)
    plan.add_tensor("matrix", (_N_COLS, len(matrix)), format_.id)
    program = Program(imagine(plan), n_layer=0)
    program.output(*program.matmul(program.select(program.embed("x")), ["matrix"], n_rows=[len(matrix)]))
    return program.with_weights([replace(program.weights[1], data=matrix)])


def _steps(session: Session, n: int) -> Iterator[float]:
    """Seconds of each of so many steps of one token."""
    for _ in range(n):
        start = perf_counter()
        session.evaluate((0,))
        yield perf_counter() - start


def _made_rows(format_: Format) -> Bytes:
    """Rows as after training: subnormal or infinite scales would be timed instead of the kernel."""
    if not format_.can_encode:
        return np.full((_N_MADE, format_.row_bytes(_N_COLS)), 0x11, np.uint8)
    weights = np.random.default_rng(1).standard_normal((_N_MADE, _N_COLS), np.float32)
    return formats.encode(weights, format_, effort="fast", n_threads=1)
