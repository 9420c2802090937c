"""How fast a disk is read, past the page cache: what streaming weights from a file can reach."""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
from contextlib import suppress
from os import PathLike
from time import perf_counter

_PIECE_BYTES = 4 << 20  # large enough for a disk's full speed, and whole pages
_MADE_BYTES = 64 << 20  # of a file to read when none was given
_DIRECT = getattr(os, "O_DIRECT", 0)  # Linux; elsewhere the page cache is in the way


def read_speed(path: str | PathLike[str] | None = None, seconds: float = 0.5) -> float | None:
    """Bytes per second of large direct reads, one after the other, spread over a file.

    Args:
        path: the file; None writes 64 MiB into the temporary folder (and removes them).
        seconds: how long to read at most.

    Returns:
        The rate, or None where it cannot be told: no direct reads on this system or file system (a temporary folder in
        memory, for one), no room, an empty file.
    """
    if not sys.platform.startswith("linux"):
        return None
    try:
        if path is not None:
            return _measure(path, seconds)
        with tempfile.NamedTemporaryFile(prefix="iqrun-") as made:
            _fill(made.fileno())
            return _measure(made.name, seconds)
    except OSError:
        return None


def _fill(file: int) -> None:
    piece = os.urandom(_PIECE_BYTES)  # a disk that compresses has no easy time
    for _ in range(_MADE_BYTES // _PIECE_BYTES):
        os.write(file, piece)
    os.fsync(file)


def _measure(path: str | PathLike[str], seconds: float) -> float | None:
    file = os.open(path, os.O_RDONLY | _DIRECT | getattr(os, "O_NONBLOCK", 0))  # never waits for a writer on a FIFO
    try:
        n_pieces = os.fstat(file).st_size // _PIECE_BYTES
        with mmap.mmap(-1, _PIECE_BYTES) as room:  # direct reads want whole pages
            n_read, start = 0, perf_counter()
            for index in _spread(n_pieces):
                n_read += os.preadv(file, [room], index * _PIECE_BYTES)
                if perf_counter() - start > seconds:
                    break
            spent = perf_counter() - start
    finally:
        with suppress(OSError):
            os.close(file)
    return n_read / spent if n_read else None


def _spread(n: int) -> list[int]:
    """At most 64 runs of four pieces that follow each other, over the whole file."""
    step = max(4, n // 64)
    return [first + i for first in range(0, n, step) for i in range(4) if first + i < n]
