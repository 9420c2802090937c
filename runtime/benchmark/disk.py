"""How fast the disk reads a file: the limit of a model whose weights are streamed."""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from time import perf_counter

from iqrun.engine.residency import N_READER, PIECE_BYTES
from iqrun.gguf import GGUFFile

_SECONDS = 2.0
_HUGE_PAGE = 2 << 20


def read_speed(path: str, *, seconds: float = _SECONDS) -> float:
    """Bytes per second at which the files of a model are read; see `direct_rate`.

    Raises:
        GGUFError: a file cannot be read.
    """
    with GGUFFile(path) as file:
        descriptors = file.reopen()
    try:
        return direct_rate(descriptors, seconds)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def direct_rate(descriptors: Sequence[int], seconds: float) -> float:
    """Bytes per second of reads, as many at once and as large as those of a stream.

    Reads the files from their beginning, and again, until the time is up.

    Args:
        descriptors: of files, opened for direct reads.
        seconds: how long to read.

    Returns:
        The rate; 0 if the files are empty.

    Raises:
        OSError: a read failed.
    """
    pieces = [(file, at) for file in descriptors for at in _offsets(os.fstat(file).st_size)]
    places = count()  # its next() is one step for the interpreter: readers share it
    start = perf_counter()

    def reader(_: int) -> int:
        done = 0
        with _room() as room, memoryview(room)[:PIECE_BYTES] as piece:
            while perf_counter() - start < seconds:
                file, offset = pieces[next(places) % len(pieces)]
                n_read = os.preadv(file, [piece], offset)
                if n_read == 0:
                    break
                done += n_read
        return done

    with ThreadPoolExecutor(N_READER) as pool:
        total = sum(pool.map(reader, range(N_READER)))
    return total / (perf_counter() - start)


def _room() -> mmap.mmap:
    """Memory for a piece: aligned, as direct reads must be, and in huge pages, as a stream has it, if possible."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return mmap.mmap(-1, PIECE_BYTES)
    room = mmap.mmap(-1, max(PIECE_BYTES, _HUGE_PAGE), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):
        room.madvise(mmap.MADV_HUGEPAGE)
    return room


def _offsets(size: int) -> range:
    """Of each whole piece of a file; of a small one, its beginning."""
    return range(0, max(1, size - PIECE_BYTES), PIECE_BYTES)
