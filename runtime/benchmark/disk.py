"""How fast the disk reads a model: the limit of one whose weights are streamed."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from time import perf_counter

from iqrun.engine.residency import N_READER, PIECE_BYTES
from iqrun.gguf import GGUFFile

_SECONDS = 2.0


def read_speed(path: str, *, seconds: float = _SECONDS) -> float:
    """Bytes per second of direct reads, as many at once and as large as those of a stream.

    Reads the files of the model from their beginning, and again, until the time is up.

    Raises:
        GGUFError: a file cannot be read.
    """
    with GGUFFile(path) as file:
        sizes = [Path(name).stat().st_size for name in file.paths]
        descriptors = file.reopen()
    try:
        return _read(_pieces(sizes), descriptors, seconds)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _pieces(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """File and offset of each whole piece; of small files, their beginnings."""
    return [(n, at) for n, size in enumerate(sizes) for at in range(0, max(1, size - PIECE_BYTES), PIECE_BYTES)]


def _read(pieces: Sequence[tuple[int, int]], descriptors: Sequence[int], seconds: float) -> float:
    places = count()  # its next() is one step for the interpreter: readers share it
    start = perf_counter()

    def reader(_: int) -> int:
        done = 0
        with mmap.mmap(-1, PIECE_BYTES) as room:  # aligned, as direct reads must be
            while perf_counter() - start < seconds:
                file, offset = pieces[next(places) % len(pieces)]
                done += os.preadv(descriptors[file], [room], offset)
        return done

    with ThreadPoolExecutor(N_READER) as pool:
        total = sum(pool.map(reader, range(N_READER)))
    return total / (perf_counter() - start)
