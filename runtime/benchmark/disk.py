"""How fast the disk reads a file: the limit of a model whose weights are streamed."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import cycle
from time import perf_counter

import numpy as np

from iqrun.engine.residency import N_READER, PIECE_BYTES
from iqrun.gguf import GGUFFile
from iqrun.native import ffi, lib

_SECONDS = 2.0
_SPAN_BYTES = 256 << 20  # that are read again and again: more than a disk's own memory holds
_HUGE_PAGE = 2 << 20

_Piece = tuple[int, int]  # descriptor, offset


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


def direct_rate(descriptors: Sequence[int], seconds: float, *, used: bool = False) -> float:
    """Bytes per second of reads, as many at once and as large as those of a stream.

    A stream reads the same bytes for each token, so these are read again and again, too, and the first time does not
    count: the disk of a virtual machine may be thirty times as fast from the second time on. Its host may also copy
    more slowly over bytes that our cores have looked at.

    Args:
        descriptors: of files, opened for direct reads.
        seconds: how long to read, after at most 2 seconds for the first time.
        used: look at the bytes, as a stream does, which also finds out whether to evict them from the caches then.

    Returns:
        The rate; 0 if the files are empty.

    Raises:
        OSError: a read failed.
    """
    pieces = [(file, at) for file in descriptors for at in _offsets(os.fstat(file).st_size)]
    pieces = pieces[: _SPAN_BYTES // PIECE_BYTES]
    seen = _read(iter(pieces), _SECONDS, _leave)[0]
    uses = [_look_at, _evict] if used else [_leave]
    rates = []
    for use in uses:
        start = perf_counter()
        n_bytes = _read(cycle(pieces[:seen]), seconds / len(uses), use)[1]
        rates.append(n_bytes / (perf_counter() - start))
    return max(rates)


def _leave(piece: memoryview) -> None:
    pass


def _look_at(piece: memoryview) -> None:
    np.frombuffer(piece, np.uint64).sum()


def _evict(piece: memoryview) -> None:
    _look_at(piece)
    lib.iq_evict(ffi.from_buffer(piece), len(piece))


def _read(pieces: Iterator[_Piece], seconds: float, use: Callable[[memoryview], None]) -> tuple[int, int]:
    """Reads pieces, `N_READER` at once, until there are no more or the time is up; how many, and their bytes."""
    end = perf_counter() + seconds

    def reader(_: int) -> list[int]:
        sizes = []
        with _room() as room, memoryview(room)[:PIECE_BYTES] as piece:
            for file, offset in pieces:  # its next() is one step for the interpreter: readers share it
                sizes.append(os.preadv(file, [piece], offset))
                use(piece)
                if sizes[-1] == 0 or perf_counter() >= end:
                    break
        return sizes

    with ThreadPoolExecutor(N_READER) as pool:
        sizes = [size for part in pool.map(reader, range(N_READER)) for size in part]
    return len(sizes), sum(sizes)


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
    return range(0, max(1, size - PIECE_BYTES + 1), PIECE_BYTES)
